// Runs one kernel that is wrong on purpose: planted NAME. Exit 1: the result shows it; 3: the model refused.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "host/device.h"

int main(int argc, char** argv) {
  if (argc < 2) return fprintf(stderr, "planted NAME [SEED]\n"), 2;
  if (argc > 2) host::set_seed((uint64_t)atoll(argv[2]));
  int parameters = 0;
  const size_t* sizes = host::kernel_parameters(argv[1], &parameters);
  if (!sizes) return fprintf(stderr, "no planted kernel %s\n", argv[1]), 2;
  std::string name = argv[1];
  bool group = name.find("wgmma") == 0 || name.find("mbarrier") != std::string::npos;
  unsigned threads = group ? 128 : name == "reused_scratch" || name.find("barrier") != std::string::npos ? 64 : 32;
  float *in = new float[threads * 4]{}, *out = new float[threads];
  for (unsigned i = 0; i < threads; i++) out[i] = 0;
  void* arguments[2] = {&out, nullptr};
  if (parameters == 2) arguments[0] = &in, arguments[1] = &out;
  size_t shared = name == "shared_overrun" ? 1024 : 16384;
  if (const char* wrong = host::launch(argv[1], {name == "cross_block_race" ? 2u : 1u, 1, 1}, {threads, 1, 1}, shared, arguments, parameters))
    return fprintf(stderr, "%s\n", wrong), 2;
  bool bad = false;
  for (unsigned i = 0; i < threads; i++) bad |= std::isnan(out[i]);
  if (name == "reused_scratch")
    for (unsigned i = 0; i < threads; i++) bad |= out[i] != 3.0f;
  delete[] in;
  delete[] out;
  if (bad) fprintf(stderr, "%s: wrong result\n", argv[1]);
  return bad ? 1 : 0;
}

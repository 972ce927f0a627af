// Runs the kernel checks: kernel-check [--gpu DIR] [--seeds N] [--small] [--repeat N] [--time FILE] [--verbose] [FAMILY…]
#include <cstdarg>
#include <cstdlib>
#include <cstring>

#include "timing.h"

void Check::begin(const char* format, ...) {
  char text[256];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  case_name = text;
}

int main(int argc, char** argv) {
  const char *gpu = nullptr, *times = nullptr;
  int seeds = 3;
  bool small = false, verbose = false;
  int repeats = 1;
  std::vector<std::string> wanted;
  for (int i = 1; i < argc; i++) {
    std::string a = argv[i];
    if (a == "--gpu" && i + 1 < argc)
      gpu = argv[++i];
    else if (a == "--seeds" && i + 1 < argc)
      seeds = atoi(argv[++i]);
    else if (a == "--repeat" && i + 1 < argc)
      repeats = atoi(argv[++i]);
    else if (a == "--time" && i + 1 < argc)
      times = argv[++i];
    else if (a == "--small")
      small = true;
    else if (a == "--verbose")
      verbose = true;
    else if (a[0] == '-')
      return fprintf(stderr, "kernel-check [--gpu DIR] [--seeds N] [--small] [--repeat N] [--time FILE] [--verbose] [FAMILY…]\n"), 2;
    else
      wanted.push_back(a);
  }
  Device* device = gpu ? open_gpu(gpu) : open_model();
  printf("device: %s\n", device->describe().c_str());
  if (times) return time_kernels(*device, times), 0;
  int passed = 0, failed = 0, families = 0;
  for (Family* f = Family::first(); f; f = f->next) {
    bool run = wanted.empty();
    for (const std::string& w : wanted) run |= w == f->name;
    if (!run) continue;
    families++;
    Check total(*device, 0, small);
    for (int s = 0; s < seeds; s++) {
      // The first seed runs threads in order, the others in a random order of their own.
      host::set_seed((uint64_t)s);
      Check c(*device, (uint64_t)s + 1, small);
      c.verbose = verbose;
      f->run(c);
      for (int again = 1; again < repeats; again++) {
        Check other(*device, (uint64_t)s + 1, small);
        other.repeating = true;
        f->run(other);
        c.expect(other.results == c.results, std::string(f->name) + ": two runs differ");
      }
      total.passed += c.passed;
      total.failed += c.failed;
    }
    printf("%-16s %4d passed, %d failed\n", f->name, total.passed, total.failed);
    fflush(stdout);
    passed += total.passed;
    failed += total.failed;
  }
  if (families == 0) return fprintf(stderr, "no such family of checks\n"), 2;
  printf("%d passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}

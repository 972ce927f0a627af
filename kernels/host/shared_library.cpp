// The host model as a shared library with a C interface, for programs in other languages.
#include "launch.h"

extern "C" {

/// Null, or what is wrong with the launch.
const char* midc_model_launch(const char* kernel, const unsigned* grid, const unsigned* block, size_t shared,
                              void** arguments, int arguments_len) {
  return host::launch(kernel, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared, arguments,
                      arguments_len);
}
void midc_model_seed(u64 seed) { host::set_seed(seed); }
int midc_model_kernel_count() { return host::kernel_count(); }
const char* midc_model_kernel_name(int i) { return host::kernel_name(i); }
/// Writes the 128 bytes of a tensor map of row-major bf16 `[height, width]` with the 128-byte swizzle.
void midc_model_map_2d(void* out, const void* base, u64 width, u64 height, u64 pitch_bytes, u32 box_width,
                       u32 box_height) {
  host::TensorMap map = {base, width, height, pitch_bytes, box_width, box_height, 2, 128};
  u8* bytes = (u8*)out;
  for (int i = 0; i < 128; i++) bytes[i] = i < (int)sizeof map ? ((const u8*)&map)[i] : 0;
}
}

// What a host program may ask of the model: launch a kernel by name, choose the schedule.
#pragma once
#include "model.h"

namespace host {

/// Runs every block of a grid; null, or what is wrong with the launch. `arguments[i]` points to parameter `i`;
/// `arguments_len` < 0 when unknown.
const char* launch(const char* name, Dim3 grid, Dim3 block, size_t shared, void** arguments, int arguments_len);
/// 0: threads run in order. Otherwise every later launch uses the random schedule of this seed.
void set_seed(u64 seed);

int kernel_count();
const char* kernel_name(int i);
/// Sizes in bytes of a kernel's parameters, null when there is no such kernel.
const size_t* kernel_parameters(const char* name, int* count);

}  // namespace host

// Timings of the kernels, for scripts/gpu-check.
#pragma once
#include "check.h"

/// One JSON object per line onto the end of `path`. With `profile` nothing is timed: the kernels that matter most run once
/// each, for a profiler. `groups` (gemm, attention, rows) leaves out the others; empty: all.
void time_kernels(Device& device, const char* path, bool profile, const std::vector<std::string>& groups);

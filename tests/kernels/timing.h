// Timings of the kernels, for scripts/gpu-check.
#pragma once
#include <cstdlib>

#include "check.h"

/// One JSON object per line into `path`.
void time_kernels(Device& device, const char* path);

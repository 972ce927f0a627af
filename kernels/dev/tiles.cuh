// The order in which blocks take the tiles of a matrix.
#pragma once
#include "dev/base.cuh"

/// Tiles in groups of GROUP rows, column after column, so that blocks that run together share operands in L2.
template <int GROUP>
__device__ __forceinline__ void tile_of(int index, int rows, int columns, int& row, int& column) {
  const int group = index / (GROUP * columns), first = group * GROUP;
  const int height = min_of(GROUP, rows - first), within = index - group * GROUP * columns;
  row = first + within % height;
  column = within / height;
}

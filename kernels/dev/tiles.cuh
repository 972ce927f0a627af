// The order in which blocks take tiles.
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

/// The order in which blocks take the work of attention: `tiles` tiles of each of gridDim.y · gridDim.z heads, the longest
/// first, of a few heads at a time whose operands of `bytes` each share L2. A long tile that begins last would be waited
/// for alone, and the tiles of all heads at once would read everything from memory. At least `least` heads, where the tiles
/// of a head wait for one another. `block`: from 0, the tiles of a head in their order.
template <int least = 1>
__device__ __forceinline__ void head_tile_of(int block, int tiles, long long bytes, int& tile, int& head, int& row) {
  constexpr long long SHARE = 16 << 20;
  const int heads = (int)(gridDim.y * gridDim.z);
  const int group = bytes * heads <= SHARE ? heads : min_of(max_of((int)(SHARE / bytes), least), heads);
  const int first = block / (group * tiles) * group, within = block - first * tiles, width = min_of(group, heads - first);
  tile = within / width;
  const int at = first + within % width;
  head = at % (int)gridDim.y;
  row = at / (int)gridDim.y;
}
__device__ __forceinline__ int block_number() { return (int)(blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z)); }

// Inside cuda/: codes of any bit count and their planes (core/codec/planes.h), one thread a run of units, for kernels of any head
// size. The fast kernels of tq have their own.
#pragma once

#include "cuda/element.cuh"
#include "cuda/tq_tables.h"
#include "cuda/tq_task.h"

namespace quire::cuda {

constexpr uint32_t kPlaneLanes = 128;

__device__ __forceinline__ uint32_t CodeOf(const BookTable& book, int bits, float y, float inverse) {
  float z = fabsf(y) * inverse;
  uint32_t half = 1u << (bits - 1), cell = 0;
  for (uint32_t step = half / 2; step > 0; step /= 2) cell += book.thresholds[cell + step - 1] < z ? step : 0;
  return cell | (y < 0 ? half : 0);
}

// The centroid that the first `kept` bits of a code stand for.
__device__ __forceinline__ float Centroid(const BookTable& book, int bits, int kept, uint32_t code) {
  uint32_t half = 1u << (bits - 1);
  float magnitude = book.centroids[kept][(code & (half - 1)) >> (bits - kept)];
  return code & half ? -magnitude : magnitude;
}

// Token and channel of value j of unit u of lane (m, g, t) (core/codec/planes.h).
__device__ __forceinline__ void PlaceOf(bool value, uint32_t dim, uint32_t lane, uint32_t unit, uint32_t j, uint32_t* token, uint32_t* channel) {
  uint32_t m = lane >> 5, g = lane >> 2 & 7, t = lane & 3, units = dim / 16;
  if (value) {
    bool alone = unit + 1 == units && units % 2 == 1;
    *token = 16 * m + 2 * t + (j & 1) + 8 * (j >> 1 & 1);
    *channel = (alone ? 16 * unit + 4 * (g >> 1) : 32 * (unit >> 1) + 4 * (unit & 1) + 8 * (g >> 1)) + 2 * (j >> 2) + (g & 1);
  } else if (uint32_t n = dim / 32; unit < 2 * n) {
    *token = 16 * m + 8 * (unit / n) + g;
    *channel = 32 * (unit % n) + 8 * t + j;
  } else {
    *token = 16 * m + 8 * (j >> 2) + g;
    *channel = 32 * n + 4 * t + (j & 3);
  }
}

// A run of 4, 2 or 1 units of one lane, and where its bits stand in a plane of `bits` bits.
struct Run {
  uint32_t lane, first, count;
  size_t offset;  // bytes, at one bit a code
};

__device__ __forceinline__ Run RunOf(uint32_t dim, uint32_t index) {
  uint32_t fours = dim / 64, pair = dim / 32 & 1;
  if (index < kPlaneLanes * fours) return {index / fours, index % fours * 4, 4, size_t{index} * 4};
  index -= kPlaneLanes * fours;
  if (pair && index < kPlaneLanes) return {index, fours * 4, 2, size_t{kPlaneLanes} * fours * 4 + index * 2};
  if (pair) index -= kPlaneLanes;
  return {index, fours * 4 + pair * 2, 1, size_t{kPlaneLanes} * (fours * 4 + pair * 2) + index};
}
__device__ __forceinline__ uint32_t RunCount(uint32_t dim) { return kPlaneLanes * (dim / 64 + (dim / 32 & 1) + (dim / 16 & 1)); }

// Plane p of an object whose levels' planes begin at `levels`; offset of its first byte.
__device__ __forceinline__ uint8_t* PlaneAt(const TqTask& task, uint32_t head, uint32_t dim, int p) {
  int level = p < 3 ? p : 3;
  uint8_t* base = task.planes[level] + size_t{head} * task.slice_stride[level];
  return p < 3 ? base : base + size_t(p - 3) * 8 * dim;
}

// Bit k of value j of a run at `count` units, in the word of a one-bit plane.
__device__ __forceinline__ uint32_t BitPosition(uint32_t count, uint32_t unit, uint32_t j) { return count * j + unit; }

__device__ __forceinline__ void StoreWord(uint8_t* at, uint32_t count, uint32_t word) {
  if (count == 4) {
    *reinterpret_cast<uint32_t*>(at) = word;
  } else if (count == 2) {
    *reinterpret_cast<uint16_t*>(at) = static_cast<uint16_t>(word);
  } else {
    *at = static_cast<uint8_t>(word);
  }
}
__device__ __forceinline__ uint32_t LoadWord(const uint8_t* at, uint32_t count) {
  if (count == 4) return *reinterpret_cast<const uint32_t*>(at);
  return count == 2 ? *reinterpret_cast<const uint16_t*>(at) : *at;
}

// The two-bit plane's words: four units: two u32; a pair: one u32; one unit: u16.
__device__ __forceinline__ void CrumbPlace(uint32_t count, uint32_t unit, uint32_t j, uint32_t* word, uint32_t* bit) {
  *word = unit >> 1;
  *bit = count == 1 ? 2 * j : 4 * j + 2 * (unit & 1);
}

// Writes run `index` of a head; code_of(channel, token) is the code of task.bits bits.
template <typename CodeAt>
__device__ void PackRun(const TqTask& task, uint32_t head, uint32_t dim, uint32_t index, CodeAt code_of) {
  Run run = RunOf(dim, index);
  uint32_t crumbs[2] = {0, 0}, ones[kMaxCodeBits - 2] = {};
  int bits = task.bits;
  for (uint32_t k = 0; k < run.count; ++k) {
    for (uint32_t j = 0; j < 8; ++j) {
      uint32_t token, channel, word, bit;
      PlaceOf(task.kind == 1, dim, run.lane, run.first + k, j, &token, &channel);
      uint32_t code = code_of(channel, token);
      CrumbPlace(run.count, k, j, &word, &bit);
      crumbs[word] |= (code >> (bits - 2)) << bit;
#pragma unroll
      for (int p = 1; p < kMaxCodeBits - 1; ++p) {
        if (p < bits - 1) ones[p - 1] |= (code >> (bits - 2 - p) & 1) << BitPosition(run.count, k, j);
      }
    }
  }
  uint8_t* plane = PlaneAt(task, head, dim, 0) + run.offset * 2;
  if (run.count == 1) {
    *reinterpret_cast<uint16_t*>(plane) = static_cast<uint16_t>(crumbs[0]);
  } else {
    reinterpret_cast<uint32_t*>(plane)[0] = crumbs[0];
    if (run.count == 4) reinterpret_cast<uint32_t*>(plane)[1] = crumbs[1];
  }
#pragma unroll
  for (int p = 1; p < kMaxCodeBits - 1; ++p) {
    if (p < bits - 1) StoreWord(PlaneAt(task, head, dim, p) + run.offset, run.count, ones[p - 1]);
  }
}

// Reads the first kept − 1 planes of run `index`: take(channel, token, code of `kept` bits).
template <typename Take>
__device__ void UnpackRun(const TqTask& task, uint32_t head, uint32_t dim, int kept, uint32_t index, Take take) {
  Run run = RunOf(dim, index);
  uint32_t crumbs[2] = {0, 0}, ones[kMaxCodeBits - 2] = {};
  const uint8_t* plane = PlaneAt(task, head, dim, 0) + run.offset * 2;
  if (run.count == 1) {
    crumbs[0] = *reinterpret_cast<const uint16_t*>(plane);
  } else {
    crumbs[0] = reinterpret_cast<const uint32_t*>(plane)[0];
    if (run.count == 4) crumbs[1] = reinterpret_cast<const uint32_t*>(plane)[1];
  }
#pragma unroll
  for (int p = 1; p < kMaxCodeBits - 1; ++p) {
    if (p < kept - 1) ones[p - 1] = LoadWord(PlaneAt(task, head, dim, p) + run.offset, run.count);
  }
  for (uint32_t k = 0; k < run.count; ++k) {
    for (uint32_t j = 0; j < 8; ++j) {
      uint32_t token, channel, word, bit;
      PlaceOf(task.kind == 1, dim, run.lane, run.first + k, j, &token, &channel);
      CrumbPlace(run.count, k, j, &word, &bit);
      uint32_t code = crumbs[word] >> bit & 3;
#pragma unroll
      for (int p = 1; p < kMaxCodeBits - 1; ++p) {
        if (p < kept - 1) code = code << 1 | (ones[p - 1] >> BitPosition(run.count, k, j) & 1);
      }
      take(channel, token, code);
    }
  }
}

}  // namespace quire::cuda

// Inside cuda/: one head's 64 vectors as floats in shared memory, [d][kPitch], channel-major, and what a thread block of
// kThreads does with them: the rotation, sums over channels. For kernels of any head size and element type.
#pragma once

#include "cuda/element.cuh"
#include "cuda/tq_tables.h"
#include "cuda/tq_task.h"

namespace quire::cuda {

constexpr uint32_t kTokens = 64, kThreads = 256, kQuarters = kThreads / kTokens;
constexpr uint32_t kPitch = kTokens + 1;  // floats a channel: rows of tokens and columns of channels both go without bank conflicts

// Rows of tokens before the first are zero.
__device__ __forceinline__ void LoadHead(const TqTask& task, uint32_t head, uint32_t dim, DType type, float* y) {
  for (uint32_t i = threadIdx.x; i < dim * kTokens; i += kThreads) {
    uint32_t t = i / dim, c = i % dim;
    y[c * kPitch + t] = t < task.first_token ? 0.0f : LoadValue(task.tensor, t * task.token_stride + head * task.head_stride + c, type);
  }
  __syncthreads();
}
__device__ __forceinline__ void StoreHead(const TqTask& task, uint32_t head, uint32_t dim, DType type, const float* y) {
  for (uint32_t i = threadIdx.x; i < dim * kTokens; i += kThreads) {
    uint32_t t = i / dim, c = i % dim;
    if (t >= task.first_token) StoreValue(task.tensor, t * task.token_stride + head * task.head_stride + c, y[c * kPitch + t], type);
  }
}

__device__ __forceinline__ bool Negative(const DimTable& table, int round, uint32_t channel) { return table.signs[round][channel / 64] >> (channel % 64) & 1; }

__device__ __forceinline__ void FlipSigns(const DimTable& table, int round, float factor, float* y) {
  for (uint32_t i = threadIdx.x; i < table.dim * kTokens; i += kThreads) {
    uint32_t c = i / kTokens, t = i % kTokens;
    y[c * kPitch + t] *= Negative(table, round, c) ? -factor : factor;
  }
  __syncthreads();
}

// The unnormalised Hadamard butterflies on each block of `power` channels, then the Hartley matrix across blocks.
__device__ __forceinline__ void MixChannels(const DimTable& table, float* y) {
  for (uint32_t h = 1; h < table.power; h *= 2) {
    for (uint32_t i = threadIdx.x; i < table.dim / 2 * kTokens; i += kThreads) {
      uint32_t pair = i / kTokens, t = i % kTokens, c = pair / h * 2 * h + pair % h;
      float a = y[c * kPitch + t], b = y[(c + h) * kPitch + t];
      y[c * kPitch + t] = a + b;
      y[(c + h) * kPitch + t] = a - b;
    }
    __syncthreads();
  }
  if (table.odd == 1) return;
  for (uint32_t i = threadIdx.x; i < table.power * kTokens; i += kThreads) {
    uint32_t b = i / kTokens, t = i % kTokens;
    float column[kMaxOdd];
    for (uint32_t k = 0; k < table.odd; ++k) column[k] = y[(k * table.power + b) * kPitch + t];
    for (uint32_t a = 0; a < table.odd; ++a) {
      float sum = 0;
      for (uint32_t k = 0; k < table.odd; ++k) sum += table.hartley[a * table.odd + k] * column[k];
      y[(a * table.power + b) * kPitch + t] = sum;
    }
  }
  __syncthreads();
}

__device__ __forceinline__ void Rotate(const DimTable& table, float* y) {
  FlipSigns(table, 0, 1.0f, y);
  MixChannels(table, y);
  FlipSigns(table, 1, 1.0f / table.power, y);
  MixChannels(table, y);
}

__device__ __forceinline__ void RotateBack(const DimTable& table, float* y) {
  MixChannels(table, y);
  FlipSigns(table, 1, 1.0f / table.power, y);
  MixChannels(table, y);
  FlipSigns(table, 0, 1.0f, y);
}

// out[t] = Σ_c term(c, t); every thread sees the result.
template <typename Term>
__device__ void SumChannels(uint32_t dim, float (*partial)[kTokens], float* out, Term term) {
  uint32_t t = threadIdx.x % kTokens, quarter = threadIdx.x / kTokens;
  float sum = 0;
  for (uint32_t c = quarter; c < dim; c += kQuarters) sum += term(c, t);
  partial[quarter][t] = sum;
  __syncthreads();
  if (threadIdx.x < kTokens) out[t] = partial[0][t] + partial[1][t] + partial[2][t] + partial[3][t];
  __syncthreads();
}

// The first token, of those that count, whose energy is no finite float; −1: none. Every thread calls it.
__device__ __forceinline__ int FirstNotFinite(uint32_t first, const float* energy) {
  for (uint32_t t = first; t < kTokens; ++t) {
    if (!isfinite(energy[t])) return static_cast<int>(t);
  }
  return -1;
}

}  // namespace quire::cuda

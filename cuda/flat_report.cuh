// Inside cuda/: what the encoders of fp8 and tq_prod report.
#pragma once

#include "cuda/tq_task.h"

namespace quire::cuda {

// Σ of `value` over a thread block of kThreads whole warps, in thread 0. `scratch`: [kThreads / 32].
template <uint32_t kThreads>
__device__ __forceinline__ double SumThreads(double value, double* scratch) {
  for (int delta = 16; delta > 0; delta /= 2) value += __shfl_xor_sync(~0u, value, delta);
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  value = 0;
  if (threadIdx.x == 0) {
    for (uint32_t i = 0; i < kThreads / 32; ++i) value += scratch[i];
  }
  return value;
}

// Both sums share a power of two, so that neither leaves float's range however large or small the vectors are.
__device__ __forceinline__ TqReport FlatReport(double energy, double error, int bad_token) {
  TqReport report;
  report.bad_token = bad_token;
  if (bad_token >= 0) return report;
  int exponent = 0;
  frexp(fmax(energy, error), &exponent);
  report.exponent = exponent;
  report.energy = static_cast<float>(ldexp(energy, -exponent));
  for (float& after : report.error) after = static_cast<float>(ldexp(error, -exponent));
  return report;
}

}  // namespace quire::cuda

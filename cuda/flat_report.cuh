// Inside cuda/: what the encoders of fp8 and tq_prod report.
#pragma once

#include "cuda/tq_task.h"

namespace quire::cuda {

// Σ‖x‖² and Σ‖x − x̂‖².
struct FlatSums {
  double energy = 0, error = 0;
};

// The sums over a thread block of kThreads, whole warps, in thread 0.
template <uint32_t kThreads>
__device__ __forceinline__ FlatSums SumThreads(FlatSums sums, FlatSums* scratch) {
  for (int delta = 16; delta > 0; delta /= 2) {
    sums.energy += __shfl_xor_sync(~0u, sums.energy, delta);
    sums.error += __shfl_xor_sync(~0u, sums.error, delta);
  }
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = sums;
  __syncthreads();
  for (uint32_t i = 1; threadIdx.x == 0 && i < kThreads / 32; ++i) {
    sums.energy += scratch[i].energy;
    sums.error += scratch[i].error;
  }
  return sums;
}

// Both sums share a power of two, so that neither leaves float's range however large or small the vectors are.
__device__ __forceinline__ TqReport FlatReport(const FlatSums& sums, int bad_token) {
  TqReport report;
  report.bad_token = bad_token;
  if (bad_token >= 0) return report;
  int exponent = 0;
  frexp(fmax(sums.energy, sums.error), &exponent);
  report.exponent = exponent;
  report.energy = static_cast<float>(ldexp(sums.energy, -exponent));
  for (float& after : report.error) after = static_cast<float>(ldexp(sums.error, -exponent));
  return report;
}

}  // namespace quire::cuda

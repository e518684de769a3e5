// Inside cuda/: from sums over a row's codes to what its scales are made of (core/codec/tq.h tells the rules).
#pragma once

#include "cuda/element.cuh"
#include "cuda/encode_codes.cuh"

namespace quire::cuda {

// A token on the lane that finishes it: |y|², √d / |y|, and of z = y · inverse after levels 0, 1, 2 ⟨|z|, c⟩ and ⟨c, c⟩.
template <int kDim>
struct EncodedToken {
  float energy, inverse, along[3], square[3];

  __device__ void Take(const FastEncodeTable::Levels& levels, const RowSums& s, const BitCounts<kDim>& count) {
#pragma unroll
    for (int level = 0; level < 2; ++level) {
      const float* a = levels.along[level];
      along[level] = fmaf(a[0], s.all, fmaf(a[1], s.from2, fmaf(a[2], s.from4, a[3] * s.from6)));
    }
    along[2] = s.centroid;
    float set[7];
#pragma unroll
    for (int i = 0; i < 7; ++i) set[i] = count.At(i);
#pragma unroll
    for (int level = 0; level < 3; ++level) {
      const float* a = levels.square[level];
      float sum = a[0] * kDim;
#pragma unroll
      for (int i = 0; i < 7; ++i) {
        if (i < (2 << level) - 1) sum = fmaf(a[1 + i], set[i], sum);
      }
      square[level] = sum;
    }
  }
};

__device__ __forceinline__ float Error(float energy, float scale, float along, float square) {
  return fmaf(scale, fmaf(scale, square, -2 * along), energy);
}

__device__ __forceinline__ int QuickCorrection(float wanted, float from) {
  float steps = fmaf(__fdividef(wanted, from), 1024.0f, -1024.0f);
  return from > 0 ? __float2int_rn(fminf(fmaxf(steps, -127.0f), 127.0f)) : 0;
}
__device__ __forceinline__ float QuickValueScale(float base, int code) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(static_cast<float>(code) * (-1.0f / 16)));
  return code == kZeroCode ? 0.0f : base * power;
}

}  // namespace quire::cuda

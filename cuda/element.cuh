// Inside cuda/: tensor elements as floats, rounded as core/base/float16.h rounds.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "core/base/dtype.h"

namespace quire::cuda {

__device__ __forceinline__ float BitsToFloat(uint16_t bits, DType type) {
  return type == DType::kBf16 ? __uint_as_float(uint32_t{bits} << 16) : __half2float(__ushort_as_half(bits));
}
__device__ __forceinline__ uint16_t FloatToBits(float value, DType type) {
  return type == DType::kBf16 ? __bfloat16_as_ushort(__float2bfloat16_rn(value)) : __half_as_ushort(__float2half_rn(value));
}
__device__ __forceinline__ float LoadValue(const void* tensor, int64_t i, DType type) {
  return type == DType::kF32 ? static_cast<const float*>(tensor)[i] : BitsToFloat(static_cast<const uint16_t*>(tensor)[i], type);
}
__device__ __forceinline__ void StoreValue(void* tensor, int64_t i, float value, DType type) {
  if (type == DType::kF32) {
    static_cast<float*>(tensor)[i] = value;
  } else {
    static_cast<uint16_t*>(tensor)[i] = FloatToBits(value, type);
  }
}
__device__ __forceinline__ float FromBf16Bits(uint16_t bits) { return __uint_as_float(uint32_t{bits} << 16); }
__device__ __forceinline__ uint16_t ToBf16Bits(float value) { return __bfloat16_as_ushort(__float2bfloat16_rn(value)); }

__device__ __forceinline__ uint32_t TokenSlotOf(uint32_t token) { return 8 * (token & 7) + 2 * (token >> 4) + (token >> 3 & 1); }

// Bits after `level` levels more than the first, and whether that level brings any (core/codec/tq.h).
__device__ __forceinline__ int KeptBitsOf(int bits, int level) { return level >= 3 || bits < 2 + level ? bits : 2 + level; }
__device__ __forceinline__ bool HasLevelOf(int bits, int level) {
  return level == 0 || KeptBitsOf(bits, level) > KeptBitsOf(bits, level - 1);
}
__device__ __forceinline__ float CorrectedScale(float scale, int8_t correction) { return scale * (1.0f + correction * 0x1p-10f); }
__device__ __forceinline__ int8_t CorrectionSteps(float wanted, float from) {
  if (!(from > 0)) return 0;
  return static_cast<int8_t>(__float2int_rn(fminf(fmaxf((wanted / from - 1.0f) * 1024.0f, -127.0f), 127.0f)));
}

inline constexpr float kTinySquare = 0x1p-100f;  // a vector whose squared norm is below is coded as zero
inline constexpr uint8_t kZeroCode = 255;

// base · 2^(−code/16); code 255 is zero.
__device__ __forceinline__ float ValueScaleOf(float base, uint8_t code) {
  return code == kZeroCode ? 0.0f : base * exp2f(static_cast<float>(code) * (-1.0f / 16));
}

}  // namespace quire::cuda

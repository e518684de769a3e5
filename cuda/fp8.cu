// The codec fp8 (core/codec/fp8.h): scales and codes bit for bit the host's. A thread block a head; a vector is shared by a power
// of two lanes, each with units of 8 channels, which go in 16-byte loads where rows stand on 16 bytes.
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include "cuda/element.cuh"
#include "cuda/flat_kernels.h"
#include "cuda/flat_report.cuh"

namespace quire::cuda {
namespace {

constexpr uint32_t kTokens = 64, kThreads = 128, kUnit = 8, kMaxLanes = 32;
constexpr float kLargestCode = 448, kLeastScale = 0x1p-100f;

// 8 channels as they lie in memory.
template <DType kType>
struct Unit {
  static constexpr int kWords = kType == DType::kF32 ? 8 : 4;
  uint32_t words[kWords];

  __device__ float at(int i) const {
    if constexpr (kType == DType::kF32) {
      return __uint_as_float(words[i]);
    } else {
      return BitsToFloat(static_cast<uint16_t>(words[i / 2] >> 16 * (i % 2)), kType);
    }
  }
  // The largest magnitude's bits in kType; a NaN's are above infinity's.
  __device__ uint32_t Largest() const {
    uint32_t most = 0;
    if constexpr (kType == DType::kF32) {
      for (uint32_t word : words) most = max(most, word & 0x7FFFFFFFu);
      return most;
    } else {
      for (uint32_t word : words) most = __vmaxu2(most, word & 0x7FFF7FFFu);
      return max(most & 0xFFFFu, most >> 16);
    }
  }
};

template <DType kType, bool kAligned>
__device__ Unit<kType> LoadUnit(const void* tensor, int64_t at) {
  Unit<kType> unit;
  if constexpr (kAligned) {
    const auto* from = reinterpret_cast<const uint4*>(static_cast<const uint8_t*>(tensor) + at * static_cast<int64_t>(SizeOf(kType)));
    for (int i = 0; i < Unit<kType>::kWords / 4; ++i) {
      uint4 four = from[i];
      unit.words[4 * i] = four.x;
      unit.words[4 * i + 1] = four.y;
      unit.words[4 * i + 2] = four.z;
      unit.words[4 * i + 3] = four.w;
    }
  } else if constexpr (kType == DType::kF32) {
    for (int i = 0; i < 8; ++i) unit.words[i] = static_cast<const uint32_t*>(tensor)[at + i];
  } else {
    const auto* from = static_cast<const uint16_t*>(tensor) + at;
    for (int i = 0; i < 4; ++i) unit.words[i] = from[2 * i] | uint32_t{from[2 * i + 1]} << 16;
  }
  return unit;
}

template <DType kType, bool kAligned>
__device__ void StoreUnit(void* tensor, int64_t at, const float (&x)[kUnit]) {
  if constexpr (kAligned) {
    uint32_t words[Unit<kType>::kWords];
    if constexpr (kType == DType::kF32) {
      for (int i = 0; i < 8; ++i) words[i] = __float_as_uint(x[i]);
    } else {
      for (int i = 0; i < 4; ++i) words[i] = FloatToBits(x[2 * i], kType) | uint32_t{FloatToBits(x[2 * i + 1], kType)} << 16;
    }
    auto* to = reinterpret_cast<uint4*>(static_cast<uint8_t*>(tensor) + at * static_cast<int64_t>(SizeOf(kType)));
    for (int i = 0; i < Unit<kType>::kWords / 4; ++i)
      to[i] = make_uint4(words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]);
  } else {
    for (int i = 0; i < 8; ++i) StoreValue(tensor, at + i, x[i], kType);
  }
}

// The largest magnitude as a float: beyond float's largest if there is a NaN or an infinity.
template <DType kType>
__device__ uint32_t FloatBitsOf(uint32_t largest) {
  return kType == DType::kF32 ? largest : __float_as_uint(BitsToFloat(static_cast<uint16_t>(largest), kType));
}

// x / scale, so near that its code is the exact quotient's: float's own rounding of it for f32. For 16-bit elements one Newton
// step on x · (1/scale) is enough: x has at most 11 bits and scale 8, so a quotient that is no tie of e4m3 is further than 2^-14
// from every tie, and one that is comes out exact.
template <DType kType>
__device__ float Quotient(float x, float scale, float reciprocal) {
  if constexpr (kType == DType::kF32) return __fdiv_rn(x, scale);
  float near = x * reciprocal;
  return copysignf(fmaf(fmaf(-near, scale, x), reciprocal, near), x);
}

// Codes of one unit; Σ(x/scale)² and what of it is lost are added to the sums at `square`, the scale's square.
template <DType kType>
__device__ uint2 CodeUnit(const Unit<kType>& unit, bool zero, float scale, float reciprocal, double square, FlatSums* sums) {
  uint32_t pairs[4];
  float energy = 0, error = 0;
  for (int i = 0; i < 4; ++i) {
    float2 v = make_float2(Quotient<kType>(unit.at(2 * i), scale, reciprocal), Quotient<kType>(unit.at(2 * i + 1), scale, reciprocal));
    pairs[i] = zero ? 0 : __nv_cvt_float2_to_fp8x2(v, __NV_SATFINITE, __NV_E4M3);
    float2 hat = __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(pairs[i]), __NV_E4M3)));
    float2 miss = make_float2(v.x - hat.x, v.y - hat.y);
    energy += v.x * v.x + v.y * v.y;
    error += miss.x * miss.x + miss.y * miss.y;
  }
  sums->energy += square * energy;
  sums->error += square * error;
  return make_uint2(pairs[0] | pairs[1] << 16, pairs[2] | pairs[3] << 16);
}

// Which channels of which tokens a thread has.
template <int kUnits>
struct Share {
  uint32_t lane, lanes, units, first, step;

  __device__ explicit Share(uint32_t dim) : units(dim / kUnit) {
    lanes = kMaxLanes;
    while (lanes / 2 >= units) lanes /= 2;
    lane = threadIdx.x % lanes;
    first = threadIdx.x / lanes;
    step = kThreads / lanes;
  }
  __device__ uint32_t unit(int k) const { return lane + static_cast<uint32_t>(k) * lanes; }
  __device__ bool has(int k) const { return unit(k) < units; }
};

template <DType kType, int kUnits>
constexpr int kAhead = kUnits > 1 ? 1 : kType == DType::kF32 ? 2 : 4;  // tokens whose loads are under way together

template <DType kType, int kUnits, bool kAligned>
__global__ void __launch_bounds__(kThreads) EncodeFp8Kernel(FlatLaunch launch) {
  constexpr int kTogether = kAhead<kType, kUnits>;
  __shared__ int bad;
  __shared__ double scratch[kThreads / 32][2];
  uint32_t dim = launch.dim, head = blockIdx.x % launch.heads;
  const TqTask task = launch.tasks[blockIdx.x / launch.heads];
  auto* scales = reinterpret_cast<uint16_t*>(task.scales[0] + size_t{head} * task.slice_stride[0]);
  uint8_t* codes = task.planes[0] + size_t{head} * task.slice_stride[0];
  Share<kUnits> share(dim);
  if (threadIdx.x == 0) bad = kTokens;
  __syncthreads();
  FlatSums sums;
  // A warp's tokens are next to each other, so its lanes go round equally often.
  for (uint32_t from = share.first; from < kTokens; from += kTogether * share.step) {
    Unit<kType> units[kTogether][kUnits];
#pragma unroll
    for (int a = 0; a < kTogether; ++a) {
      uint32_t t = from + a * share.step;
#pragma unroll
      for (int k = 0; k < kUnits; ++k) {
        units[a][k] = {};
        if (t < kTokens && t >= task.first_token && share.has(k))
          units[a][k] = LoadUnit<kType, kAligned>(task.tensor, t * task.token_stride + head * task.head_stride + share.unit(k) * kUnit);
      }
    }
#pragma unroll
    for (int a = 0; a < kTogether; ++a) {
      uint32_t t = from + a * share.step, most = 0;
      if (t >= kTokens) continue;
#pragma unroll
      for (int k = 0; k < kUnits; ++k) most = max(most, units[a][k].Largest());
      for (uint32_t delta = share.lanes / 2; delta > 0; delta /= 2) most = max(most, __shfl_xor_sync(~0u, most, delta));
      most = FloatBitsOf<kType>(most);
      if (most > 0x7F7FFFFFu && share.lane == 0) atomicMin(&bad, static_cast<int>(t));
      float wanted = __fdiv_rn(__uint_as_float(most), kLargestCode);
      bool zero = wanted < kLeastScale;
      uint32_t stored = zero ? 0 : __float_as_uint(wanted) >> 16;
      float scale = zero ? kLeastScale : __uint_as_float(stored << 16), reciprocal = __frcp_rn(scale);
      if (share.lane == 0) scales[t] = static_cast<uint16_t>(stored);
#pragma unroll
      for (int k = 0; k < kUnits; ++k) {
        if (!share.has(k)) continue;
        uint2 coded = CodeUnit<kType>(units[a][k], zero, scale, reciprocal, double{scale} * scale, &sums);
        *reinterpret_cast<uint2*>(codes + t * dim + share.unit(k) * kUnit) = coded;
      }
    }
  }
  sums = SumThreads<kThreads>(sums, reinterpret_cast<FlatSums*>(scratch));
  if (threadIdx.x == 0)
    launch.reports[task.report + head] = FlatReport(sums, bad < static_cast<int>(kTokens) ? bad : -1);
}

template <DType kType, int kUnits, bool kAligned>
__global__ void __launch_bounds__(kThreads) DecodeFp8Kernel(FlatLaunch launch) {
  constexpr int kTogether = kUnits > 1 ? 1 : 4;
  uint32_t dim = launch.dim, head = blockIdx.x % launch.heads;
  const TqTask task = launch.tasks[blockIdx.x / launch.heads];
  const auto* scales = reinterpret_cast<const uint16_t*>(task.scales[0] + size_t{head} * task.slice_stride[0]);
  const uint8_t* codes = task.planes[0] + size_t{head} * task.slice_stride[0];
  Share<kUnits> share(dim);
  for (uint32_t from = share.first; from < kTokens; from += kTogether * share.step) {
    uint2 coded[kTogether][kUnits];
    float scale[kTogether];
#pragma unroll
    for (int a = 0; a < kTogether; ++a) {
      uint32_t t = from + a * share.step;
      bool live = t < kTokens && t >= task.first_token;
      scale[a] = live ? FromBf16Bits(scales[t]) : 0.0f;
#pragma unroll
      for (int k = 0; k < kUnits; ++k) {
        coded[a][k] = make_uint2(0, 0);
        if (live && share.has(k)) coded[a][k] = *reinterpret_cast<const uint2*>(codes + t * dim + share.unit(k) * kUnit);
      }
    }
#pragma unroll
    for (int a = 0; a < kTogether; ++a) {
      uint32_t t = from + a * share.step;
      if (t >= kTokens || t < task.first_token) continue;
#pragma unroll
      for (int k = 0; k < kUnits; ++k) {
        if (!share.has(k)) continue;
        float x[kUnit];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          auto pair = static_cast<__nv_fp8x2_storage_t>((i < 2 ? coded[a][k].x : coded[a][k].y) >> 16 * (i % 2));
          float2 value = __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2(pair, __NV_E4M3)));
          x[2 * i] = scale[a] * value.x;
          x[2 * i + 1] = scale[a] * value.y;
        }
        StoreUnit<kType, kAligned>(task.tensor, t * task.token_stride + head * task.head_stride + share.unit(k) * kUnit, x);
      }
    }
  }
}

template <DType kType, int kUnits, bool kAligned>
cudaError_t Launch(bool encode, const FlatLaunch& launch, cudaStream_t stream) {
  if (encode) {
    EncodeFp8Kernel<kType, kUnits, kAligned><<<launch.count * launch.heads, kThreads, 0, stream>>>(launch);
  } else {
    DecodeFp8Kernel<kType, kUnits, kAligned><<<launch.count * launch.heads, kThreads, 0, stream>>>(launch);
  }
  return cudaGetLastError();
}

template <DType kType>
cudaError_t Launch(bool encode, const FlatLaunch& launch, cudaStream_t stream) {
  constexpr int kMost = (kMaxCodecDim + kUnit * kMaxLanes - 1) / (kUnit * kMaxLanes);
  bool one = launch.dim <= kUnit * kMaxLanes;
  if (launch.aligned) return one ? Launch<kType, 1, true>(encode, launch, stream) : Launch<kType, kMost, true>(encode, launch, stream);
  return one ? Launch<kType, 1, false>(encode, launch, stream) : Launch<kType, kMost, false>(encode, launch, stream);
}

cudaError_t Launch(bool encode, const FlatLaunch& launch, cudaStream_t stream) {
  switch (launch.type) {
    case DType::kBf16: return Launch<DType::kBf16>(encode, launch, stream);
    case DType::kF16: return Launch<DType::kF16>(encode, launch, stream);
    default: return Launch<DType::kF32>(encode, launch, stream);
  }
}

}  // namespace

cudaError_t LaunchEncodeFp8(const FlatLaunch& launch, cudaStream_t stream) { return Launch(true, launch, stream); }
cudaError_t LaunchDecodeFp8(const FlatLaunch& launch, cudaStream_t stream) { return Launch(false, launch, stream); }

}  // namespace quire::cuda

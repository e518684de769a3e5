// The codec tq_prod (core/codec/tq_prod.h): a thread block a head, floats in shared memory; S comes from device memory, by the
// caches. For vector search, where its d²-sized products are what they are.
#include <cuda_runtime.h>

#include "cuda/any_codes.cuh"
#include "cuda/flat_kernels.h"
#include "cuda/flat_report.cuh"
#include "cuda/shared_head.cuh"

namespace quire::cuda {
namespace {

constexpr uint32_t kTile = 4, kTileLanes = kTokens / kTile, kTileRows = kTile * kThreads / kTileLanes;

struct Shared {
  FlatSums* scratch;                  // [kThreads / 32]
  float* y;                           // [d][kPitch]
  float (*partial)[kTokens];          // [kQuarters]
  float *energy, *scale, *rest, *inverse;  // [kTokens]
  uint2* negative;                    // [d]: bit t: (S·r_t)_j < 0
  uint8_t* codes;                     // [d][kTokens]
};

__device__ Shared Carve(uint8_t* base, uint32_t dim) {
  auto take = [&](size_t bytes) {
    uint8_t* at = base;
    base += bytes;
    return at;
  };
  Shared s;
  s.scratch = reinterpret_cast<FlatSums*>(take(kThreads / 32 * sizeof(FlatSums)));
  s.negative = reinterpret_cast<uint2*>(take(dim * sizeof(uint2)));
  s.y = reinterpret_cast<float*>(take(size_t{dim} * kPitch * sizeof(float)));
  s.partial = reinterpret_cast<float (*)[kTokens]>(take(kQuarters * kTokens * sizeof(float)));
  for (float** array : {&s.energy, &s.scale, &s.rest, &s.inverse}) *array = reinterpret_cast<float*>(take(kTokens * sizeof(float)));
  s.codes = take(size_t{dim} * kTokens);
  return s;
}

// The books of DimTable begin at two bits.
__device__ const BookTable& BookOf(const FlatLaunch& launch, int bits) {
  return bits < kMinBits ? launch.projection->one_bit : launch.table->books[bits - kMinBits];
}

// A thread's sixteen sums: rows (or columns) first…first + 3 of S by tokens lane + 16 i.
struct Tile {
  float sums[kTile][kTile];
  uint32_t first, lane;

  // Tiles go over the rows in steps of kTileRows; the threads of a warp are in or out together, as d % 8 = 0.
  __device__ explicit Tile(uint32_t at) : sums{}, first(at + kTile * (threadIdx.x / kTileLanes)), lane(threadIdx.x % kTileLanes) {}
  __device__ uint32_t token(uint32_t i) const { return lane + kTileLanes * i; }

  // sums[k][i] = Σ_c S[first + k][c] · y[c][token i]
  __device__ void Project(const float* s, uint32_t dim, const float* y) {
    for (uint32_t c = 0; c < dim; c += 4) {
      float4 rows[kTile];
#pragma unroll
      for (uint32_t k = 0; k < kTile; ++k) rows[k] = __ldg(reinterpret_cast<const float4*>(s + size_t{first + k} * dim + c));
#pragma unroll
      for (uint32_t q = 0; q < 4; ++q) {
#pragma unroll
        for (uint32_t i = 0; i < kTile; ++i) {
          float x = y[(c + q) * kPitch + token(i)];
#pragma unroll
          for (uint32_t k = 0; k < kTile; ++k) {
            float entry = q == 0 ? rows[k].x : q == 1 ? rows[k].y : q == 2 ? rows[k].z : rows[k].w;
            sums[k][i] = fmaf(entry, x, sums[k][i]);
          }
        }
      }
    }
  }

  // sums[k][i] = Σ_j ±S[j][first + k], minus where bit `token i` of negative[j] is set
  __device__ void Back(const float* s, uint32_t dim, const uint2* negative) {
#pragma unroll 4
    for (uint32_t j = 0; j < dim; ++j) {
      float4 row = __ldg(reinterpret_cast<const float4*>(s + size_t{j} * dim + first));
      uint2 bits = negative[j];
#pragma unroll
      for (uint32_t i = 0; i < kTile; ++i) {
        uint32_t word = i < 2 ? bits.x : bits.y, up = 31 - (i % 2 * kTileLanes + lane);
        float sign = __uint_as_float(0x3F800000u | (word << up & 0x80000000u));
        sums[0][i] = fmaf(row.x, sign, sums[0][i]);
        sums[1][i] = fmaf(row.y, sign, sums[1][i]);
        sums[2][i] = fmaf(row.z, sign, sums[2][i]);
        sums[3][i] = fmaf(row.w, sign, sums[3][i]);
      }
    }
  }
};

// negative[j] of all rows, from the residuals in y.
__device__ void FindSigns(const FlatLaunch& launch, const Shared& s) {
  for (uint32_t at = 0; at < launch.dim; at += kTileRows) {
    Tile tile(at);
    if (tile.first >= launch.dim) break;
    tile.Project(launch.projection->entries(), launch.dim, s.y);
    uint32_t half = threadIdx.x % 32 / kTileLanes;  // a warp has two rows' tokens
#pragma unroll
    for (uint32_t k = 0; k < kTile; ++k) {
#pragma unroll
      for (uint32_t i = 0; i < kTile; ++i) {
        uint32_t votes = __ballot_sync(~0u, tile.sums[k][i] < 0);
        if (tile.lane == 0) reinterpret_cast<uint16_t*>(s.negative + tile.first + k)[i] = static_cast<uint16_t>(votes >> 16 * half);
      }
    }
  }
  __syncthreads();
}

// Scales, rests and directions by token; what is written of them.
__device__ void StoreScales(const TqTask& task, uint32_t head, uint32_t dim, const Shared& s) {
  if (threadIdx.x < kTokens) {
    uint32_t t = threadIdx.x;
    float root = sqrtf(static_cast<float>(dim)), norm = sqrtf(s.energy[t]);
    bool zero = t < task.first_token || s.energy[t] < kTinySquare;
    uint16_t stored = zero ? uint16_t{0} : ToBf16Bits(norm / root);
    reinterpret_cast<uint16_t*>(task.scales[0] + size_t{head} * task.slice_stride[0])[TokenSlotOf(t)] = stored;
    s.scale[t] = FromBf16Bits(stored);
    s.inverse[t] = zero ? 0.0f : root / norm;
  }
  __syncthreads();
}
__device__ void StoreRests(const TqTask& task, uint32_t head, const float* squares, const Shared& s) {
  if (threadIdx.x < kTokens) {
    uint32_t t = threadIdx.x;
    uint16_t stored = s.inverse[t] == 0 ? uint16_t{0} : ToBf16Bits(sqrtf(squares[t]));
    reinterpret_cast<uint16_t*>(task.scales[1] + size_t{head} * task.slice_stride[1])[TokenSlotOf(t)] = stored;
    s.rest[t] = FromBf16Bits(stored);
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads) EncodeProdKernel(FlatLaunch launch) {
  extern __shared__ double memory[];
  uint32_t dim = launch.dim, head = blockIdx.x % launch.heads;
  const TqTask task = launch.tasks[blockIdx.x / launch.heads];
  Shared s = Carve(reinterpret_cast<uint8_t*>(memory), dim);
  TqReport* report = launch.reports + task.report + head;
  int bits = task.bits - 1;
  const BookTable& book = BookOf(launch, bits);
  LoadHead(task, head, dim, launch.type, s.y);
  Rotate(*launch.table, s.y);
  auto square = [&](uint32_t c, uint32_t t) { return s.y[c * kPitch + t] * s.y[c * kPitch + t]; };
  SumChannels(dim, s.partial, s.energy, square);
  if (int bad = FirstNotFinite(task.first_token, s.energy); bad >= 0) {
    if (threadIdx.x == 0) *report = FlatReport({}, bad);
    return;
  }
  StoreScales(task, head, dim, s);
  FlatSums sums;
  if (threadIdx.x < kTokens) sums.energy = s.energy[threadIdx.x];
  for (uint32_t i = threadIdx.x; i < dim * kTokens; i += kThreads) {
    uint32_t c = i / kTokens, t = i % kTokens;
    uint32_t code = CodeOf(book, bits, s.y[c * kPitch + t], s.inverse[t]);
    s.codes[i] = static_cast<uint8_t>(code);
    s.y[c * kPitch + t] -= s.scale[t] * Centroid(book, bits, bits, code);
  }
  __syncthreads();
  SumChannels(dim, s.partial, s.energy, square);
  StoreRests(task, head, s.energy, s);
  FindSigns(launch, s);
  for (uint32_t at = 0; at < dim; at += kTileRows) {
    Tile tile(at);
    if (tile.first >= dim) break;
    tile.Back(launch.projection->entries(), dim, s.negative);
    for (uint32_t i = 0; i < kTile; ++i) {
      uint32_t t = tile.token(i);
      float factor = s.rest[t] * launch.projection->kappa;
      for (uint32_t k = 0; k < kTile; ++k) {
        double miss = s.y[(tile.first + k) * kPitch + t] - factor * tile.sums[k][i];
        sums.error += miss * miss;
      }
    }
  }
  sums = SumThreads<kThreads>(sums, s.scratch);
  if (threadIdx.x == 0) *report = FlatReport(sums, -1);
  auto code_of = [&](uint32_t c, uint32_t t) {
    uint32_t sign = (t < 32 ? s.negative[c].x : s.negative[c].y) >> (t % 32) & 1;
    return s.inverse[t] == 0 ? 0u : 2u * s.codes[c * kTokens + t] + sign;
  };
  for (uint32_t i = threadIdx.x; i < RunCount(dim); i += kThreads) PackRun(task, head, dim, i, code_of);
}

__global__ void __launch_bounds__(kThreads) DecodeProdKernel(FlatLaunch launch) {
  extern __shared__ double memory[];
  uint32_t dim = launch.dim, head = blockIdx.x % launch.heads;
  const TqTask task = launch.tasks[blockIdx.x / launch.heads];
  Shared s = Carve(reinterpret_cast<uint8_t*>(memory), dim);
  int bits = task.bits - 1;
  const BookTable& book = BookOf(launch, bits);
  if (threadIdx.x < kTokens) {
    uint32_t t = threadIdx.x, slot = TokenSlotOf(t);
    auto part = [&](int i) { return reinterpret_cast<const uint16_t*>(task.scales[i] + size_t{head} * task.slice_stride[i]); };
    s.scale[t] = FromBf16Bits(part(0)[slot]);
    s.rest[t] = FromBf16Bits(part(1)[slot]) * launch.projection->kappa;
  }
  auto take = [&](uint32_t c, uint32_t t, uint32_t code) { s.codes[c * kTokens + t] = static_cast<uint8_t>(code); };
  for (uint32_t i = threadIdx.x; i < RunCount(dim); i += kThreads) UnpackRun(task, head, dim, task.bits, i, take);
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < dim * kTokens; i += kThreads) {
    uint32_t votes = __ballot_sync(~0u, s.codes[i] & 1);
    if (i % 32 == 0) reinterpret_cast<uint32_t*>(s.negative)[i / 32] = votes;
  }
  __syncthreads();
  for (uint32_t at = 0; at < dim; at += kTileRows) {
    Tile tile(at);
    if (tile.first >= dim) break;
    tile.Back(launch.projection->entries(), dim, s.negative);
    for (uint32_t i = 0; i < kTile; ++i) {
      uint32_t t = tile.token(i);
      for (uint32_t k = 0; k < kTile; ++k) {
        uint32_t c = tile.first + k;
        s.y[c * kPitch + t] = s.scale[t] * Centroid(book, bits, bits, s.codes[c * kTokens + t] >> 1) + s.rest[t] * tile.sums[k][i];
      }
    }
  }
  __syncthreads();
  RotateBack(*launch.table, s.y);
  StoreHead(task, head, dim, launch.type, s.y);
}

template <typename Kernel>
cudaError_t Launch(Kernel kernel, const FlatLaunch& launch, cudaStream_t stream) {
  size_t bytes = ProdSharedBytes(launch.dim);
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (error != cudaSuccess) return error;
  kernel<<<launch.count * launch.heads, kThreads, bytes, stream>>>(launch);
  return cudaGetLastError();
}

}  // namespace

size_t ProdSharedBytes(uint32_t dim) {
  return kThreads / 32 * sizeof(FlatSums) + dim * (sizeof(uint2) + kPitch * sizeof(float) + kTokens) + (kQuarters + 4) * kTokens * sizeof(float);
}

cudaError_t LaunchEncodeProd(const FlatLaunch& launch, cudaStream_t stream) { return Launch(EncodeProdKernel, launch, stream); }
cudaError_t LaunchDecodeProd(const FlatLaunch& launch, cudaStream_t stream) { return Launch(DecodeProdKernel, launch, stream); }

}  // namespace quire::cuda

// Inside cuda/: what a warp of decode attention is made of: int8 and bf16 products, bulk copies into its own ring, a head's rotation
// by shuffles, and the running sums of a softmax.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "cuda/attention_kernel.h"
#include "cuda/sm90.cuh"

namespace quire::cuda {

constexpr uint32_t kAllLanes = 0xFFFFFFFFu;
constexpr float kNoScore = -1e30f;

// d += a (16 × 32 signed bytes) · b (32 × 8 signed or unsigned bytes), fragments as mma.m16n8k32 has them.
__device__ __forceinline__ void MmaSigned(int (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void MmaUnsigned(int (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void MmaBf16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ float PowerOfTwo(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// Two floats as bf16, the first in the lower half.
__device__ __forceinline__ uint32_t PackBf16(float low, float high) {
  uint32_t d;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
  return d;
}
__device__ __forceinline__ float Bf16Low(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float Bf16High(uint32_t pair) { return __uint_as_float(pair & 0xFFFF0000u); }
// Byte `index` of a word as the float 2^23 + byte.
__device__ __forceinline__ float ByteAbove2To23(uint32_t word, int index) { return __uint_as_float(Permute(word, 0x4B000000u, 0x7540u + index)); }

// Barriers that count bytes.
__device__ __forceinline__ void InitBarrier(uint32_t barrier) { asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barrier) : "memory"); }
__device__ __forceinline__ void ExpectBytes(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// What is read once goes first when the L2 cache wants room: lists and partial results stay.
__device__ __forceinline__ uint64_t ReadOncePolicy() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ void BulkCopyOnce(uint32_t shared, const void* global, uint32_t bytes, uint32_t barrier, uint64_t policy) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(shared),
               "l"(global), "r"(bytes), "r"(barrier), "l"(policy)
               : "memory");
}
__device__ __forceinline__ void WaitForPhase(uint32_t barrier, uint32_t parity) {
  uint32_t done;
  do {
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(done) : "r"(barrier), "r"(parity) : "memory");
  } while (!done);
}

// This launch may begin while the kernel before it in its stream ends (programmatic dependent launch): what that one may have written is
// there only after the first of these. The second lets the next one begin likewise.
__device__ __forceinline__ void WaitForEarlierKernels() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
__device__ __forceinline__ void LetLaterKernelsStart() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

// A vector of one head across a warp: value a · kEach + e of a lane is channel a · kPower + kEach · lane + e.
template <int kDim>
struct WarpVector {
  static constexpr int kOdd = kDim % 3 == 0 ? 3 : 1, kPower = kDim / kOdd, kEach = kPower / 32, kValues = kOdd * kEach;
  static_assert(kEach >= 1 && (kPower & (kPower - 1)) == 0);
  float v[kValues];

  static __device__ __forceinline__ int Channel(int i, int lane) { return i / kEach * kPower + kEach * lane + i % kEach; }

  __device__ __forceinline__ void Scale(float factor) {
#pragma unroll
    for (int i = 0; i < kValues; ++i) v[i] *= factor;
  }
  // y = R x.
  __device__ void Rotate(const AttentionLaunch& launch, int lane) {
    Flip(launch, 0, 1.0f, lane);
    Mix(launch, lane);
    Flip(launch, 1, 1.0f / kPower, lane);
    Mix(launch, lane);
  }
  // x = Rᵀ y.
  __device__ void RotateBack(const AttentionLaunch& launch, int lane) {
    Mix(launch, lane);
    Flip(launch, 1, 1.0f / kPower, lane);
    Mix(launch, lane);
    Flip(launch, 0, 1.0f, lane);
  }

 private:
  __device__ __forceinline__ void Flip(const AttentionLaunch& launch, int round, float factor, int lane) {
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      int c = Channel(i, lane);
      v[i] *= launch.signs[round][c / 32] >> (c % 32) & 1 ? -factor : factor;
    }
  }
  // Hadamard butterflies within each power of two, then the Hartley matrix across them.
  __device__ __forceinline__ void Mix(const AttentionLaunch& launch, int lane) {
#pragma unroll
    for (int h = 1; h < kEach; h *= 2) {
#pragma unroll
      for (int i = 0; i < kValues; ++i) {
        if (i & h) continue;
        float a = v[i], b = v[i + h];
        v[i] = a + b;
        v[i + h] = a - b;
      }
    }
#pragma unroll
    for (int h = 1; h < 32; h *= 2) {
      float sign = lane & h ? -1.0f : 1.0f;
#pragma unroll
      for (int i = 0; i < kValues; ++i) v[i] = fmaf(sign, v[i], __shfl_xor_sync(kAllLanes, v[i], h));
    }
    if constexpr (kOdd == 3) {
#pragma unroll
      for (int e = 0; e < kEach; ++e) {
        float x[3] = {v[e], v[kEach + e], v[2 * kEach + e]};
#pragma unroll
        for (int j = 0; j < 3; ++j) v[j * kEach + e] = launch.hartley[0] * x[0] + launch.hartley[j % 3] * x[1] + launch.hartley[2 * j % 3] * x[2];
      }
    }
  }
};

// What a warp has summed of its pages. Lane 4g + t; tile n, entry 2r + e: channel ChannelOf(n, g) + 2r, column 2t + e. Columns are query
// heads; kWide: eight of them; else four, and columns 4…7 hold the same heads' low halves of weights.
template <int kDim, bool kWide>
struct Sums {
  static constexpr int kTiles = kDim / 16;
  float o[kTiles][4];
  float half[2];    // to be added to every channel: codes' bytes stand for byte + ½
  float most[2];    // largest score so far, in powers of two
  float weight[2];  // this lane's share of Σ 2^(score − most)

  static __device__ __forceinline__ int ChannelOf(int tile, int g) { return 32 * (tile >> 1) + 4 * (tile & 1) + 8 * (g >> 1) + (g & 1); }

  __device__ __forceinline__ void Clear() {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) o[n][0] = o[n][1] = o[n][2] = o[n][3] = 0;
    half[0] = half[1] = weight[0] = weight[1] = 0;
    most[0] = most[1] = kNoScore;
  }
  // Raises `most` to a page's largest scores, which all lanes of a column have.
  __device__ __forceinline__ void Raise(const float (&page)[2]) {
    if (!__any_sync(kAllLanes, page[0] > most[0] || page[1] > most[1])) return;
    float down[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float next = fmaxf(page[e], most[e]);
      down[e] = PowerOfTwo(most[e] - next);
      most[e] = next;
      weight[e] *= down[e];
      half[e] *= down[e];
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) o[n][i] *= down[i & 1];
    }
  }
};

// Largest of the scores of this lane's two columns over all lanes of the column. score[m][2r + e]: token 16m + 8r + g, column 2t + e.
__device__ __forceinline__ void ColumnMaxima(const float (&score)[4][4], float (&most)[2]) {
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    float a = fmaxf(score[0][e], score[0][2 + e]);
#pragma unroll
    for (int m = 1; m < 4; ++m) a = fmaxf(a, fmaxf(score[m][e], score[m][2 + e]));
#pragma unroll
    for (int h = 4; h < 32; h *= 2) a = fmaxf(a, __shfl_xor_sync(kAllLanes, a, h));
    most[e] = a;
  }
}

// Tokens outside [begin, end) are not seen.
__device__ __forceinline__ void MaskTokens(int begin, int end, int g, float (&score)[4][4]) {
#pragma unroll
  for (int m = 0; m < 4; ++m) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      int token = 16 * m + 8 * r + g;
      if (token < begin || token >= end) score[m][2 * r] = score[m][2 * r + 1] = kNoScore;
    }
  }
}

}  // namespace quire::cuda

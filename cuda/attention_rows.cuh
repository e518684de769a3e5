// Inside cuda/: attention of one warp to one page of raw rows, read from where they are: sinks, the window, and layers that are not coded.
#pragma once

#include "cuda/attention_warp.cuh"

namespace quire::cuda {

// Sixteen bytes of a row, or zeros: what lies outside a page's tokens may be anything.
__device__ __forceinline__ void LoadRow(const uint8_t* at, bool seen, uint32_t (&words)[4]) {
  uint4 x = seen ? __ldg(reinterpret_cast<const uint4*>(at)) : make_uint4(0, 0, 0, 0);
  words[0] = x.x, words[1] = x.y, words[2] = x.z, words[3] = x.w;
}

// q: bf16 rows [kWide ? 8 : 4][kDim] in shared memory, not rotated; `scale` makes its scores powers of two.
template <int kDim, bool kWide>
__device__ __forceinline__ void AttendToRows(const uint8_t* keys, const uint8_t* values, uint32_t token_stride, int begin, int end, const __nv_bfloat16* q,
                                             float scale, int lane, Sums<kDim, kWide>* sums) {
  constexpr int kTiles = kDim / 32;
  const int g = lane >> 2, t = lane & 3;
  const __nv_bfloat16* query = q + (g & (kWide ? 7 : 3)) * kDim + 8 * t;
  auto seen = [&](int token) { return token >= begin && token < end; };
  float score[4][4];
#pragma unroll
  for (int m = 0; m < 4; ++m) {
    float d[4] = {0, 0, 0, 0};
    if (16 * m < end && 16 * m + 16 > begin) {
      const int token = 16 * m + g;
      const uint8_t* row = keys + size_t(token) * token_stride + 16 * t;
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        uint32_t x[4], y[4];
        LoadRow(row + 64 * i, seen(token), x);
        LoadRow(row + 64 * i + size_t{8} * token_stride, seen(token + 8), y);
        uint4 b = *reinterpret_cast<const uint4*>(query + 32 * i);
        MmaBf16(d, x[0], y[0], x[1], y[1], b.x, b.y);
        MmaBf16(d, x[2], y[2], x[3], y[3], b.z, b.w);
      }
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) score[m][e] = d[e] * scale;
  }
  MaskTokens(begin, end, g, score);
  float page[2];
  ColumnMaxima(score, page);
  sums->Raise(page);
#pragma unroll
  for (int m = 0; m < 4; ++m) {
    if (16 * m >= end || 16 * m + 16 <= begin) continue;
    float p[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      p[e] = PowerOfTwo(score[m][e] - sums->most[e & 1]);
      sums->weight[e & 1] += p[e];
    }
    // Weights as bf16 and what that left, which takes columns 4…7 or a product of its own.
    uint32_t high[2], low[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      uint32_t rounded = PackBf16(p[2 * r], p[2 * r + 1]);
      uint32_t rest = PackBf16(p[2 * r] - Bf16Low(rounded), p[2 * r + 1] - Bf16High(rounded));
      high[r] = Transpose8x8(kWide || t < 2 ? rounded : rest);
      low[r] = kWide ? Transpose8x8(rest) : 0;
    }
    const int token = 16 * m + g;
    const uint8_t* row = values + size_t(token) * token_stride + 16 * t;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      uint32_t x[4], y[4];
      LoadRow(row + 64 * i, seen(token), x);
      LoadRow(row + 64 * i + size_t{8} * token_stride, seen(token + 8), y);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        uint32_t a0 = Transpose8x8(x[2 * e]), a1 = Transpose8x8(x[2 * e + 1]), a2 = Transpose8x8(y[2 * e]), a3 = Transpose8x8(y[2 * e + 1]);
        MmaBf16(sums->o[2 * i + e], a0, a1, a2, a3, high[0], high[1]);
        if constexpr (kWide) MmaBf16(sums->o[2 * i + e], a0, a1, a2, a3, low[0], low[1]);
      }
    }
  }
}

}  // namespace quire::cuda

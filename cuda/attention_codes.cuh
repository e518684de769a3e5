// Inside cuda/: attention of one warp to one page of codes, which lies in its ring.
#pragma once

#include "cuda/attention_warp.cuh"

namespace quire::cuda {

// Where the parts of a head's slices stand in a stage of the ring: level after level (core/block/README.md).
template <int kDim>
struct StageShape {
  static constexpr int kScalars = kDim, kKeyScales = kDim + 16, kKeyPlane = kDim + 144, kValueScales = 17 * kDim + 144, kValuePlane = 17 * kDim + 208,
                       kLevel0 = 33 * kDim + 208, kCorrections = 64, kBitPlane = 8 * kDim, kBytes = kLevel0 + 2 * (kCorrections + 2 * kBitPlane);
};

// A rotated query of every column's head as fragments: bytes of channels 32i + 8t + 4k…, high and low halves of 16 bits.
template <int kDim>
struct QueryFragments {
  uint32_t high[kDim / 32][2], low[kDim / 32][2];
  float scale[2];   // of a unit of this lane's columns, in powers of two
  float offset[2];  // half the sum over channels, scaled
};

template <int kWords>
__device__ __forceinline__ void LoadShared(const uint8_t* at, uint32_t (&words)[kWords]) {
  if constexpr (kWords % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kWords; i += 4) {
      uint4 x = *reinterpret_cast<const uint4*>(at + 4 * i);
      words[i] = x.x, words[i + 1] = x.y, words[i + 2] = x.z, words[i + 3] = x.w;
    }
  } else if constexpr (kWords % 2 == 0) {
#pragma unroll
    for (int i = 0; i < kWords; i += 2) {
      uint2 x = *reinterpret_cast<const uint2*>(at + 4 * i);
      words[i] = x.x, words[i + 1] = x.y;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kWords; ++i) words[i] = *reinterpret_cast<const uint32_t*>(at + 4 * i);
  }
}

// Bits of a where mask has ones, else of b; and (a & mask) | c. Written out, since two instructions come of C.
__device__ __forceinline__ uint32_t Select(uint32_t mask, uint32_t a, uint32_t b) {
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xCA;" : "=r"(d) : "r"(mask), "r"(a), "r"(b));
  return d;
}
__device__ __forceinline__ uint32_t MaskOr(uint32_t a, uint32_t mask, uint32_t c) {
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(d) : "r"(a), "r"(mask), "r"(c));
  return d;
}

// Four units from their planes, value j in nibble j. Of 4 bits: sign above three bits of magnitude. Of 3 and 2: what their tables are
// indexed by (attention_task.h), bit 3 clear.
template <int kKept>
__device__ __forceinline__ void UnpackFour(uint32_t crumbs0, uint32_t crumbs1, uint32_t first, uint32_t second, uint32_t* unit) {
  constexpr uint32_t kTop = 0xCCCCCCCCu, kOdd = 0xAAAAAAAAu, kLow = 0x33333333u, kThird = 0x44444444u;
  if constexpr (kKept == 4) {
    // Lower two bits of units 0 and 2, of 1 and 3.
    uint32_t even = Select(kOdd, first << 1, second), odd = Select(kOdd, first, second >> 1);
    unit[0] = Select(kTop, crumbs0 << 2, even);
    unit[1] = Select(kTop, crumbs0, odd);
    unit[2] = Select(kTop, crumbs1 << 2, even >> 2);
    unit[3] = Select(kTop, crumbs1, odd >> 2);
  } else {
    unit[0] = crumbs0 & kLow;
    unit[1] = crumbs0 >> 2 & kLow;
    unit[2] = crumbs1 & kLow;
    unit[3] = crumbs1 >> 2 & kLow;
    if constexpr (kKept == 3) {
      unit[0] = MaskOr(first << 2, kThird, unit[0]);
      unit[1] = MaskOr(first << 1, kThird, unit[1]);
      unit[2] = MaskOr(first, kThird, unit[2]);
      unit[3] = MaskOr(first >> 1, kThird, unit[3]);
    }
  }
}

// A unit's eight centroids as signed bytes; a negative one is the complement, so a byte b stands for b + ½.
template <int kKept>
__device__ __forceinline__ void CentroidBytes(uint32_t unit, const uint32_t (&table)[2], uint32_t& first, uint32_t& second) {
  if constexpr (kKept == 4) {
    uint32_t magnitude = unit & 0x77777777u, up = unit << 4;
    first = Permute(table[0], table[1], magnitude) ^ Permute(up, unit, 0xD9C8u);
    second = Permute(table[0], table[1], magnitude >> 16) ^ Permute(up, unit, 0xFBEAu);
  } else {
    first = Permute(table[0], table[1], unit);
    second = Permute(table[0], table[1], unit >> 16);
  }
}

// score[m][2r + e] = ⟨q, centroids of token 16m + 8r + g⟩ in units of the table's step. `first` and `second` are the one-bit planes.
template <int kDim, int kKept>
__device__ __forceinline__ void CodeScores(const uint8_t* crumbs, const uint8_t* first, const uint8_t* second, const uint32_t (&table)[2],
                                           const QueryFragments<kDim>& q, int lane, float (&score)[4][4]) {
  constexpr int kFours = kDim / 64, kTiles = kDim / 32;
#pragma unroll
  for (int m = 0; m < 4; ++m) {
    uint32_t two[2 * kFours], one[kFours] = {}, last[kFours] = {}, unit[4 * kFours];
    LoadShared(crumbs + (32 * m + lane) * 8 * kFours, two);
    if constexpr (kKept >= 3) LoadShared(first + (32 * m + lane) * 4 * kFours, one);
    if constexpr (kKept >= 4) LoadShared(second + (32 * m + lane) * 4 * kFours, last);
#pragma unroll
    for (int f = 0; f < kFours; ++f) UnpackFour<kKept>(two[2 * f], two[2 * f + 1], one[f], last[f], unit + 4 * f);
    int high[4] = {0, 0, 0, 0}, low[4] = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      uint32_t a0, a1, a2, a3;
      CentroidBytes<kKept>(unit[i], table, a0, a2);
      CentroidBytes<kKept>(unit[kTiles + i], table, a1, a3);
      MmaSigned(high, a0, a1, a2, a3, q.high[i][0], q.high[i][1]);
      MmaSigned(low, a0, a1, a2, a3, q.low[i][0], q.low[i][1]);
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) score[m][e] = fmaf(static_cast<float>(high[e] * 256 + low[e]), q.scale[e & 1], q.offset[e & 1]);
  }
}

// ⟨q, mean⟩ of this lane's columns.
template <int kDim>
__device__ __forceinline__ void MeanScores(const uint8_t* mean, float step, const QueryFragments<kDim>& q, int t, float (&score)[2]) {
  int high[4] = {0, 0, 0, 0}, low[4] = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < kDim / 32; ++i) {
    uint2 a = *reinterpret_cast<const uint2*>(mean + 32 * i + 8 * t);
    MmaSigned(high, a.x, a.x, a.y, a.y, q.high[i][0], q.high[i][1]);
    MmaSigned(low, a.x, a.x, a.y, a.y, q.low[i][0], q.low[i][1]);
  }
#pragma unroll
  for (int e = 0; e < 2; ++e) score[e] = static_cast<float>(high[e] * 256 + low[e]) * (q.scale[e] * step);
}

// Scales of this lane's eight tokens 8a + g, times `factor`; corrections null where the page has none.
__device__ __forceinline__ void KeyScales(const uint8_t* scales, const uint8_t* first, const uint8_t* second, float factor, int g, float (&scale)[8]) {
  uint32_t pairs[4];
  LoadShared(scales + 16 * g, pairs);
#pragma unroll
  for (int a = 0; a < 8; ++a) scale[a] = (a & 1 ? Bf16High(pairs[a / 2]) : Bf16Low(pairs[a / 2])) * factor;
  auto correct = [&](const uint8_t* corrections) {
    uint32_t bytes[2];
    LoadShared(corrections + 8 * g, bytes);
    bytes[0] ^= 0x80808080u, bytes[1] ^= 0x80808080u;  // q + 128
#pragma unroll
    for (int a = 0; a < 8; ++a) scale[a] *= fmaf(ByteAbove2To23(bytes[a / 4], a % 4), 1.0f / 1024, 1.0f - 8192.125f);
  };
  if (first != nullptr) correct(first);
  if (second != nullptr) correct(second);
}

constexpr float kAccumulatorBase = 12582912.0f;  // 1.5 · 2^23: its bits plus an integer are the bits of the sum
constexpr int kAccumulatorBits = 0x4B400000;

// Adds Σ weight · centroid over a page's tokens to `sums`. b[half][m]: weights' bytes of tokens 16m + 2t, + 2t + 1, + 2t + 8, + 2t + 9 in
// column g; kWide: high halves in b[0] and low ones in b[1]; else b[0] has high halves in columns 0…3 and low ones in 4…7.
template <int kDim, bool kWide, int kKept>
__device__ __forceinline__ void AddValues(const uint8_t* crumbs, const uint8_t* first, const uint8_t* second, const uint32_t (&table)[2],
                                          const uint32_t (&b)[2][4], const float (&factor)[2], int lane, Sums<kDim, kWide>* sums) {
  constexpr int kFours = kDim / 64, kHalves = kWide ? 2 : 1;
#pragma unroll
  for (int f = 0; f < kFours; ++f) {
    uint32_t unit[4][4];
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      int at = (32 * m + lane) * kFours + f;
      uint32_t two[2], one[1] = {}, last[1] = {};
      LoadShared(crumbs + 8 * at, two);
      if constexpr (kKept >= 3) LoadShared(first + 4 * at, one);
      if constexpr (kKept >= 4) LoadShared(second + 4 * at, last);
      UnpackFour<kKept>(two[0], two[1], one[0], last[0], unit[m]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      int d[kHalves][4];
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
#pragma unroll
        for (int e = 0; e < 4; ++e) d[half][e] = kAccumulatorBits;
      }
#pragma unroll
      for (int m = 0; m < 4; m += 2) {
        uint32_t a0, a1, a2, a3;
        CentroidBytes<kKept>(unit[m][i], table, a0, a1);
        CentroidBytes<kKept>(unit[m + 1][i], table, a2, a3);
#pragma unroll
        for (int half = 0; half < kHalves; ++half) MmaUnsigned(d[half], a0, a1, a2, a3, b[half][m], b[half][m + 1]);
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        float sum = __int_as_float(d[0][e]) - kAccumulatorBase;
        if constexpr (kWide) sum = fmaf(sum, 256.0f, __int_as_float(d[1][e]) - kAccumulatorBase);
        sums->o[4 * f + i][e] = fmaf(sum, factor[e & 1], sums->o[4 * f + i][e]);
      }
    }
  }
  int d[kHalves][4];
#pragma unroll
  for (int half = 0; half < kHalves; ++half) {
#pragma unroll
    for (int e = 0; e < 4; ++e) d[half][e] = kAccumulatorBits;
#pragma unroll
    for (int m = 0; m < 4; m += 2) MmaUnsigned(d[half], 0x01010101u, 0x01010101u, 0x01010101u, 0x01010101u, b[half][m], b[half][m + 1]);
  }
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    float sum = __int_as_float(d[0][e]) - kAccumulatorBase;
    if constexpr (kWide) sum = fmaf(sum, 256.0f, __int_as_float(d[1][e]) - kAccumulatorBase);
    sums->half[e] = fmaf(sum, 0.5f * factor[e], sums->half[e]);
  }
}

// A weight is kept as an integer of this many units of the page's largest; codes of V's scales below 1/kWeightUnits / 2 vanish, which
// makes code 255 the zero that it stands for.
constexpr float kWeightUnits = 30000.0f, kLog2WeightUnits = 14.872675f;

template <int kDim, bool kWide>
__device__ __forceinline__ void AttendToCodes(const uint8_t* stage, const AttentionForm& form, int begin, int end, const QueryFragments<kDim>& q, int lane,
                                              Sums<kDim, kWide>* sums) {
  using Shape = StageShape<kDim>;
  const int g = lane >> 2, t = lane & 3;
  const int k_kept = form.k_kept, v_kept = form.v_kept;
  // K's corrections and plane of level 1, V's plane, and the same of level 2.
  const uint8_t* k1 = stage + Shape::kLevel0;
  const uint8_t* v1 = k1 + (k_kept >= 3 ? Shape::kCorrections + Shape::kBitPlane : 0);
  const uint8_t* k2 = v1 + (v_kept >= 3 ? Shape::kBitPlane : 0);
  const uint8_t* v2 = k2 + (k_kept >= 4 ? Shape::kCorrections + Shape::kBitPlane : 0);
  uint32_t scalars = *reinterpret_cast<const uint32_t*>(stage + Shape::kScalars);

  float score[4][4];
  {
    const uint8_t* crumbs = stage + Shape::kKeyPlane;
    uint32_t table[2] = {form.k_table[0], form.k_table[1]};
    const uint8_t *first = k1 + Shape::kCorrections, *second = k2 + Shape::kCorrections;
    if (k_kept == 4) {
      CodeScores<kDim, 4>(crumbs, first, second, table, q, lane, score);
    } else if (k_kept == 3) {
      CodeScores<kDim, 3>(crumbs, first, second, table, q, lane, score);
    } else {
      CodeScores<kDim, 2>(crumbs, first, second, table, q, lane, score);
    }
    float mean[2], scale[8];
    MeanScores<kDim>(stage, Bf16Low(scalars), q, t, mean);
    KeyScales(stage + Shape::kKeyScales, k_kept >= 3 ? k1 : nullptr, k_kept >= 4 ? k2 : nullptr, form.k_step, g, scale);
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
      for (int e = 0; e < 4; ++e) score[m][e] = fmaf(score[m][e], scale[2 * m + (e >> 1)], mean[e & 1]);
    }
  }
  if (begin > 0 || end < 64) MaskTokens(begin, end, g, score);

  float page[2], factor[2], sum[2] = {0, 0};
  ColumnMaxima(score, page);
  sums->Raise(page);
  uint32_t codes[2], b[2][4];
  LoadShared(stage + Shape::kValueScales + 8 * g, codes);
#pragma unroll
  for (int m = 0; m < 4; ++m) {
    uint32_t z[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      int a = 2 * m + (e >> 1);
      float value_scale = PowerOfTwo(fmaf(ByteAbove2To23(codes[a / 4], a % 4), -1.0f / 16, 524288.0f));
      float p = PowerOfTwo(score[m][e] - (page[e & 1] - kLog2WeightUnits));
      sum[e & 1] += p;
      z[e] = __float_as_uint(fmaf(p, value_scale, 8388608.0f));
    }
    uint32_t low_tokens = Transpose8x8(Permute(z[0], z[1], 0x5410u)), high_tokens = Transpose8x8(Permute(z[2], z[3], 0x5410u));
    if constexpr (kWide) {
      b[0][m] = Permute(low_tokens, high_tokens, 0x7531u);
      b[1][m] = Permute(low_tokens, high_tokens, 0x6420u);
    } else {
      b[0][m] = Permute(low_tokens, high_tokens, g < 4 ? 0x7531u : 0x6420u);
    }
  }
  float unit = Bf16High(scalars) * form.v_step * (kWide || t >= 2 ? 1.0f : 256.0f);
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    float down = PowerOfTwo(page[e] - sums->most[e]) * (1.0f / kWeightUnits);
    sums->weight[e] = fmaf(sum[e], down, sums->weight[e]);
    factor[e] = unit * down;
  }
  const uint8_t* crumbs = stage + Shape::kValuePlane;
  uint32_t table[2] = {form.v_table[0], form.v_table[1]};
  if (v_kept == 4) {
    AddValues<kDim, kWide, 4>(crumbs, v1, v2, table, b, factor, lane, sums);
  } else if (v_kept == 3) {
    AddValues<kDim, kWide, 3>(crumbs, v1, v2, table, b, factor, lane, sums);
  } else {
    AddValues<kDim, kWide, 2>(crumbs, v1, v2, table, b, factor, lane, sums);
  }
}

}  // namespace quire::cuda

// Per-target: the rotation's mixing step M over a tile of 16 tokens, in the order that core/codec/rotation.h
// fixes.
#if defined(QUIRE_CORE_CODEC_SIMD_ROTATE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUIRE_CORE_CODEC_SIMD_ROTATE_INL_H_
#undef QUIRE_CORE_CODEC_SIMD_ROTATE_INL_H_
#else
#define QUIRE_CORE_CODEC_SIMD_ROTATE_INL_H_
#endif

#include "core/codec/rotation.h"
#include "core/codec/simd/lanes-inl.h"
#include "core/codec/tiles.h"

HWY_BEFORE_NAMESPACE();
namespace quire {
namespace HWY_NAMESPACE {

// Butterflies of distances 1, 2, … kRadix/2 within registers.
template <size_t kRadix>
HWY_INLINE void Butterflies(VF* HWY_RESTRICT v) {
#pragma GCC unroll 4
  for (size_t s = 1; s < kRadix; s *= 2) {
#pragma GCC unroll 16
    for (size_t a = 0; a < kRadix; ++a) {
      if ((a & s) != 0) continue;
      VF difference = hn::Sub(v[a], v[a + s]);
      v[a] = hn::Add(v[a], v[a + s]);
      v[a + s] = difference;
    }
  }
}

// Butterflies of distances h, 2h, … up to kRadix/2 · h over `rows` rows of x, each row first multiplied with
// its factor.
template <size_t kRadix, bool kScaled>
HWY_INLINE void ButterflyPass(uint32_t rows, uint32_t h, size_t row, const float* HWY_RESTRICT factors,
                              float* x) {
  const DF d;
  for (uint32_t base = 0; base < rows; base += kRadix * h) {
    for (uint32_t i = base; i < base + h; ++i) {
      for (size_t l = 0; l < kTileTokens; l += kLanes) {
        float* HWY_RESTRICT at = x + i * row + l;
        VF v[kRadix];
#pragma GCC unroll 16
        for (size_t k = 0; k < kRadix; ++k) {
          v[k] = hn::LoadU(d, at + k * h * row);
          if constexpr (kScaled) v[k] = hn::Mul(v[k], hn::Set(d, factors[i + k * h]));
        }
        Butterflies<kRadix>(v);
#pragma GCC unroll 16
        for (size_t k = 0; k < kRadix; ++k) hn::StoreU(v[k], d, at + k * h * row);
      }
    }
  }
}

// The radix of a transform's first pass: 64 = 8·8, 128 = 16·8, 256 = 16·16, two passes over a tile that stays
// in the first-level cache.
constexpr uint32_t FirstRadix(uint32_t rows) { return rows == 16 || rows >= 128 ? 16 : 8; }

// The unnormalised Walsh–Hadamard transform of `rows` rows, rows a power of two from 16 to 512. factors: as
// above, or null. kFirstDone: what the first pass does has been done.
template <bool kFirstDone>
HWY_NOINLINE void HadamardTile(uint32_t rows, size_t row, const float* factors, float* x) {
  uint32_t h = FirstRadix(rows);
  if constexpr (!kFirstDone) {
    if (factors != nullptr) {
      h == 16 ? ButterflyPass<16, true>(rows, 1, row, factors, x)
              : ButterflyPass<8, true>(rows, 1, row, factors, x);
    } else {
      h == 16 ? ButterflyPass<16, false>(rows, 1, row, nullptr, x)
              : ButterflyPass<8, false>(rows, 1, row, nullptr, x);
    }
  }
  if (rows == 256) return ButterflyPass<16, false>(rows, h, row, nullptr, x);
  if (rows >= 8 * h) {
    ButterflyPass<8, false>(rows, h, row, nullptr, x);
    h *= 8;
  }
  if (rows == 4 * h) ButterflyPass<4, false>(rows, h, row, nullptr, x);
}

// x[a] = Σ_k matrix[a][k] x[k] over kOdd rows (`odd` of them where kOdd is 0) that lie `stride` floats apart.
template <uint32_t kOdd>
HWY_INLINE void HartleyTile(uint32_t odd, uint32_t power, size_t row, const float* HWY_RESTRICT matrix,
                            float* x) {
  const DF d;
  const uint32_t n = kOdd > 0 ? kOdd : odd;
  size_t stride = power * row;
  for (uint32_t i = 0; i < power; ++i) {
    for (size_t l = 0; l < kTileTokens; l += kLanes) {
      float* at = x + i * row + l;
      VF v[kOdd > 0 ? kOdd : kMaxCodecDim / kCodecDimStep];
      for (uint32_t k = 0; k < n; ++k) v[k] = hn::LoadU(d, at + k * stride);
      for (uint32_t a = 0; a < n; ++a) {
        VF sum = hn::Zero(d);
        for (uint32_t k = 0; k < n; ++k) sum = hn::Add(sum, hn::Mul(hn::Set(d, matrix[a * n + k]), v[k]));
        hn::StoreU(sum, d, at + a * stride);
      }
    }
  }
}

// M·sqrt(p) on a tile; rows are first multiplied with `factors` unless that is null. kFirstDone: as above.
template <bool kFirstDone = false>
HWY_NOINLINE void MixTile(const RotationTables& r, size_t row, const float* factors, float* x) {
  for (uint32_t a = 0; a < r.odd; ++a) {
    HadamardTile<kFirstDone>(r.power, row, factors == nullptr ? nullptr : factors + a * r.power,
                             x + a * r.power * row);
  }
  switch (r.odd) {
    case 1:
      return;
    case 3:
      return HartleyTile<3>(3, r.power, row, r.hartley, x);
    case 5:
      return HartleyTile<5>(5, r.power, row, r.hartley, x);
    default:
      return HartleyTile<0>(r.odd, r.power, row, r.hartley, x);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace quire
HWY_AFTER_NAMESPACE();
#endif

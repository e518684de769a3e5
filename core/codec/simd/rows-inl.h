// Per-target: 16 rows of a strided tensor to a tile and back. Rows hold channels side by side, a tile tokens,
// so this is a transpose; two 16-bit channels travel in one 32-bit lane.
#if defined(QUIRE_CORE_CODEC_SIMD_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUIRE_CORE_CODEC_SIMD_ROWS_INL_H_
#undef QUIRE_CORE_CODEC_SIMD_ROWS_INL_H_
#else
#define QUIRE_CORE_CODEC_SIMD_ROWS_INL_H_
#endif

#include "core/base/dtype.h"
#include "core/codec/simd/lanes-inl.h"
#include "core/codec/tiles.h"
#include "hwy/cache_control.h"

HWY_BEFORE_NAMESPACE();
namespace quire {
namespace HWY_NAMESPACE {

// Asks for a quarter of 16 rows, which lie apart and which no hardware prefetcher sees coming. A quarter at a
// time, between steps of work, because a core has room for some ten misses only. rows: null for none.
HWY_INLINE void FetchQuarter(DType type, const uint8_t* const* rows, uint32_t dim, size_t quarter) {
  if (rows == nullptr) return;
  size_t bytes = dim * SizeOf(type);
  for (size_t t = kTileTokens / 4 * quarter; t < kTileTokens / 4 * (quarter + 1); ++t) {
    for (size_t at = 0; at < bytes; at += 64) hwy::Prefetch(rows[t] + at);
    if (reinterpret_cast<uintptr_t>(rows[t]) % 64 != 0) hwy::Prefetch(rows[t] + bytes - 1);
  }
}

// y[c][t] = rows[t][c] with the sign bit flips[c].
template <DType kType, class D>
HWY_INLINE void LoadSpan(D d, const uint8_t* const* HWY_RESTRICT rows, uint32_t first, uint32_t end,
                         const uint32_t* HWY_RESTRICT flips, size_t row, float* HWY_RESTRICT y) {
  constexpr size_t kN = hn::MaxLanes(D());
  using V = hn::Vec<D>;
  constexpr size_t kWords = kType == DType::kF32 ? 1 : 2;  // channels a lane
  for (uint32_t c0 = first; c0 < end; c0 += kWords * kN) {
    for (size_t t0 = 0; t0 < kTileTokens; t0 += kN) {
      V r[kN];
#pragma GCC unroll 16
      for (size_t k = 0; k < kN; ++k) {
        r[k] = hn::LoadU(d, reinterpret_cast<const uint32_t*>(rows[t0 + k] + c0 * SizeOf(kType)));
      }
      TransposeLanes(d, r);
#pragma GCC unroll 16
      for (size_t k = 0; k < kN; ++k) {
        uint32_t c = c0 + static_cast<uint32_t>(kWords * k);
        float* to = y + c * row + t0;
        auto put = [&](uint32_t channel, V bits, float* at) HWY_ATTR {
          hn::StoreU(hn::Xor(bits, hn::Set(d, flips[channel])), d, reinterpret_cast<uint32_t*>(at));
        };
        if constexpr (kType == DType::kF32) {
          put(c, r[k], to);
        } else if constexpr (kType == DType::kBf16) {
          put(c, hn::ShiftLeft<16>(r[k]), to);
          put(c + 1, hn::And(r[k], hn::Set(d, 0xFFFF0000u)), to + row);
        } else {
          put(c, F16ToF32Bits(d, hn::And(r[k], hn::Set(d, 0xFFFFu))), to);
          put(c + 1, F16ToF32Bits(d, hn::ShiftRight<16>(r[k])), to + row);
        }
      }
    }
  }
}

// Whole vectors of channels as wide as the target has them, a rest of sixteen 16-bit channels in halves.
template <DType kType>
HWY_INLINE void LoadRows(const uint8_t* const* rows, uint32_t dim, const uint32_t* flips, size_t row,
                         float* y) {
  uint32_t wide = kType == DType::kF32 ? dim : dim / 32 * 32;
  LoadSpan<kType>(DU(), rows, 0, wide, flips, row, y);
  LoadSpan<kType>(DU8(), rows, wide, dim, flips, row, y);
}

HWY_MAYBE_UNUSED static HWY_NOINLINE void LoadTile(DType type, const uint8_t* const* rows, uint32_t dim,
                                                   const uint32_t* flips, size_t row, float* y) {
  switch (type) {
    case DType::kBf16:
      return LoadRows<DType::kBf16>(rows, dim, flips, row, y);
    case DType::kF16:
      return LoadRows<DType::kF16>(rows, dim, flips, row, y);
    case DType::kF32:
      return LoadRows<DType::kF32>(rows, dim, flips, row, y);
  }
}

// rows[t][c] = y[c][t] with the sign bit flips[c], rounded to nearest even. kFinite: there is no NaN.
// kPastCaches: rows begin on 64 bytes, and where a vector is that long it goes to memory without the line
// being read first.
template <DType kType, bool kFinite, bool kPastCaches, class D>
HWY_INLINE void StoreSpan(D d, const float* HWY_RESTRICT y, size_t row, uint32_t first, uint32_t end,
                          const uint32_t* HWY_RESTRICT flips, uint8_t* const* HWY_RESTRICT rows) {
  const hn::RebindToFloat<D> df;
  constexpr size_t kN = hn::MaxLanes(D());
  using V = hn::Vec<D>;
  constexpr size_t kWords = kType == DType::kF32 ? 1 : 2;
  for (uint32_t c0 = first; c0 < end; c0 += kWords * kN) {
    for (size_t t0 = 0; t0 < kTileTokens; t0 += kN) {
      V r[kN];
#pragma GCC unroll 16
      for (size_t k = 0; k < kN; ++k) {
        uint32_t c = c0 + static_cast<uint32_t>(kWords * k);
        auto get = [&](uint32_t channel) HWY_ATTR {
          V bits = hn::BitCast(d, hn::LoadU(df, y + channel * row + t0));
          return hn::Xor(bits, hn::Set(d, flips[channel]));
        };
        if constexpr (kType == DType::kF32) {
          r[k] = get(c);
        } else if constexpr (kType == DType::kBf16) {
          const hn::Repartition<uint16_t, D> d16;
          V even = RoundToBf16<kFinite>(d, hn::BitCast(df, get(c))),
            odd = RoundToBf16<kFinite>(d, hn::BitCast(df, get(c + 1)));
          r[k] =
              hn::BitCast(d, hn::OddEven(hn::BitCast(d16, odd), hn::BitCast(d16, hn::ShiftRight<16>(even))));
        } else {
          r[k] = hn::Or(F32ToF16Bits(d, get(c)), hn::ShiftLeft<16>(F32ToF16Bits(d, get(c + 1))));
        }
      }
      TransposeLanes(d, r);
#pragma GCC unroll 16
      for (size_t k = 0; k < kN; ++k) {
        auto* to = reinterpret_cast<uint32_t*>(rows[t0 + k] + c0 * SizeOf(kType));
        if constexpr (kPastCaches && kN == 16) {
          hn::Stream(r[k], d, to);
        } else {
          hn::StoreU(r[k], d, to);
        }
      }
    }
  }
}

template <DType kType, bool kFinite, bool kPastCaches = false>
HWY_INLINE void StoreRows(const float* y, size_t row, uint32_t dim, const uint32_t* flips,
                          uint8_t* const* rows) {
  uint32_t wide = kType == DType::kF32 ? dim : dim / 32 * 32;
  StoreSpan<kType, kFinite, kPastCaches>(DU(), y, row, 0, wide, flips, rows);
  StoreSpan<kType, kFinite, kPastCaches>(DU8(), y, row, wide, dim, flips, rows);
}

HWY_MAYBE_UNUSED static HWY_NOINLINE void StoreTile(DType type, const float* y, size_t row, uint32_t dim,
                                                    const uint32_t* flips, uint8_t* const* rows, bool finite,
                                                    bool past_caches) {
  switch (type) {
    case DType::kBf16:
      if (!finite) return StoreRows<DType::kBf16, false>(y, row, dim, flips, rows);
      return past_caches ? StoreRows<DType::kBf16, true, true>(y, row, dim, flips, rows)
                         : StoreRows<DType::kBf16, true>(y, row, dim, flips, rows);
    case DType::kF16:
      return past_caches ? StoreRows<DType::kF16, false, true>(y, row, dim, flips, rows)
                         : StoreRows<DType::kF16, false>(y, row, dim, flips, rows);
    case DType::kF32:
      return past_caches ? StoreRows<DType::kF32, false, true>(y, row, dim, flips, rows)
                         : StoreRows<DType::kF32, false>(y, row, dim, flips, rows);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace quire
HWY_AFTER_NAMESPACE();
#endif

// Per-target: the quantiser's passes over one tile of 16 tokens. A sum over channels runs in ascending order
// in each token's own lane, one rounded product and one rounded addition at a time, so every vector width
// gives the same bits.
//
// |y| and magnitudes stand for y and signed centroids: the sign of a code is y's (but where errors are
// shaped), so products and squared differences are the same.
#if defined(QUIRE_CORE_CODEC_SIMD_QUANTISE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUIRE_CORE_CODEC_SIMD_QUANTISE_INL_H_
#undef QUIRE_CORE_CODEC_SIMD_QUANTISE_INL_H_
#else
#define QUIRE_CORE_CODEC_SIMD_QUANTISE_INL_H_
#endif

#include <algorithm>

#include "core/codec/quantiser_tables.h"
#include "core/codec/simd/lanes-inl.h"
#include "core/codec/simd/rotate-inl.h"
#include "core/codec/tiles.h"

HWY_BEFORE_NAMESPACE();
namespace quire {
namespace HWY_NAMESPACE {

// Of the eight channels of a word: all of them where registers are many.
inline constexpr size_t kUnroll = kLanes == 16 ? 8 : 2;

// Sums of one tile, by level.
struct TileSums {
  alignas(64) float along[kTqLevels][kTileTokens];  // ⟨|y|, c⟩
  alignas(64) float square[kTileTokens];            // ⟨c, c⟩, all bits
  alignas(64) float miss[kTqLevels][kTileTokens];   // ‖y − scale·c‖²
};

enum class Measure { kNothing, kAlongAllLevels, kAlongAndSquare };

// How many levels' centroids are looked up by three bits of magnitude, and whether there is one more by all
// of them.
constexpr int ShortLevels(int bits) { return std::min(bits, 4) - 1; }
constexpr bool HasFullLevel(int bits) { return bits > 4; }
constexpr int LastLevel(int bits) { return HasFullLevel(bits) ? 3 : ShortLevels(bits) - 1; }

// cell, with `bit` set where z is above the threshold.
HWY_INLINE VU SetAbove(VU cell, VF z, VF threshold, uint32_t bit) {
  const DU du;
  auto above = hn::RebindMask(du, hn::Gt(z, threshold));
  if constexpr (kLanes == 16)
    return hn::IfThenElse(above, hn::Or(cell, hn::Set(du, bit)), cell);  // one masked or
  return hn::Or(cell, hn::IfThenElseZero(above, hn::Set(du, bit)));
}

// The number of thresholds less than z, by halving: kBits − 1 comparisons. Up to four bits it comes as the
// three bits of a high nibble's magnitude, at their top.
template <int kBits>
HWY_INLINE VU CellOf(const QuantiserTables& tables, VF z) {
  const DF d;
  const DU du;
  VU cell = hn::Zero(du);
  if constexpr (kBits >= 2) {
    auto above = hn::Gt(z, hn::Set(d, tables.search[0][0]));
    cell = hn::IfThenElseZero(hn::RebindMask(du, above), hn::Set(du, 4u));
    if constexpr (kBits >= 3) {
      VF second = hn::IfThenElse(above, hn::Set(d, tables.search[1][1]), hn::Set(d, tables.search[1][0]));
      cell = SetAbove(cell, z, second, 2);
    }
    if constexpr (kBits >= 4) cell = SetAbove(cell, z, LookupMagnitude(tables.third, cell), 1);
    auto halve = [&](VF threshold) HWY_ATTR { cell = SetAbove(hn::Add(cell, cell), z, threshold, 1); };
    if constexpr (kBits >= 5) halve(Lookup<8>(tables.search[3], cell));
    if constexpr (kBits >= 6) halve(Lookup<16>(tables.search[4], cell));
    if constexpr (kBits >= 7) halve(Lookup<32>(tables.search[5], cell));
    if constexpr (kBits >= 8) halve(Lookup<64>(tables.search[6], cell));
  }
  return cell;
}

// A channel's codes on their way into words: at the top, with what came before moving down a nibble.
template <int kBits>
HWY_INLINE void PushCode(VU cell, VU sign, VU& high_word, VU& low_word) {
  const DU du;
  VU top = hn::ShiftLeft < kBits <= 4 ? 28 : 32 - kBits > (cell);
  if constexpr (kBits > 4) {
    VU rest = hn::And(top, hn::Set(du, 0x0FFFFFFFu));
    low_word = hn::Or(hn::ShiftRight<4>(low_word), hn::ShiftLeft<4>(rest));
    top = hn::And(top, hn::Set(du, 0x70000000u));
  }
  high_word = hn::Or(hn::ShiftRight<4>(high_word), hn::Or(top, sign));
}

// The three bits of a cell that tables of up to four bits are looked up by; and all bits' centroid.
template <int kBits>
HWY_INLINE VU ThreeBits(VU cell) {
  return kBits > 4 ? hn::ShiftRight<std::max(kBits - 4, 0)>(cell) : cell;
}
template <int kBits>
HWY_INLINE VF FullCentroid(const QuantiserTables& tables, VU cell) {
  if constexpr (HasFullLevel(kBits)) return Lookup<size_t{1} << (kBits - 1)>(tables.full, cell);
  return LookupMagnitude(tables.full, cell);
}

// Adds magnitude · centroid to the sum of every level but the last where that has more than four bits.
template <int kBits>
HWY_INLINE void AddAlongShortLevels(const QuantiserTables& tables, VF magnitude, VU cell, VF* along) {
  for (int level = 0; level < ShortLevels(kBits); ++level) {
    along[level] = hn::Add(along[level],
                           hn::Mul(magnitude, LookupMagnitude(tables.kept[level], ThreeBits<kBits>(cell))));
  }
}

// Codes of y · inverse, as words, and sums of what they stand for.
template <int kBits, Measure kMeasure>
HWY_NOINLINE void IndexTile(const QuantiserTables& tables, const float* HWY_RESTRICT y, size_t row,
                            const float* HWY_RESTRICT inverse, uint32_t* HWY_RESTRICT high,
                            uint32_t* HWY_RESTRICT low, TileSums* sums) {
  const DF d;
  const DU du;
  for (size_t l = 0; l < kTileTokens; l += kLanes) {
    VF factor = hn::LoadU(d, inverse + l);
    VF along[kTqLevels], square = hn::Zero(d);
    for (VF& sum : along) sum = hn::Zero(d);
    for (uint32_t block = 0; block < tables.dim / 8; ++block) {
      VU high_word = hn::Zero(du), low_word = hn::Zero(du);
#pragma GCC unroll kUnroll
      for (size_t j = 0; j < 8; ++j) {
        // −0 becomes +0: only what is less than 0 has a sign.
        VF value = hn::Add(hn::LoadU(d, y + (8 * block + j) * row + l), hn::Zero(d)),
           magnitude = hn::Abs(value);
        VU cell = CellOf<kBits>(tables, hn::Mul(magnitude, factor));
        VU sign = hn::And(hn::BitCast(du, value), hn::Set(du, 0x80000000u));
        PushCode<kBits>(cell, sign, high_word, low_word);
        if constexpr (kMeasure != Measure::kNothing) {
          if constexpr (kMeasure == Measure::kAlongAllLevels)
            AddAlongShortLevels<kBits>(tables, magnitude, cell, along);
          if constexpr (kMeasure == Measure::kAlongAndSquare || HasFullLevel(kBits)) {
            VF chosen = FullCentroid<kBits>(tables, cell);
            constexpr int kLast = LastLevel(kBits);
            along[kLast] = hn::Add(along[kLast], hn::Mul(magnitude, chosen));
            if constexpr (kMeasure == Measure::kAlongAndSquare)
              square = hn::Add(square, hn::Mul(chosen, chosen));
          }
        }
      }
      hn::StoreU(high_word, du, high + block * kPlaneTokens + l);
      if constexpr (kBits > 4) hn::StoreU(low_word, du, low + block * kPlaneTokens + l);
    }
    if constexpr (kMeasure != Measure::kNothing) {
      for (int level = 0; level < kTqLevels; ++level) hn::Store(along[level], d, sums->along[level] + l);
      hn::Store(square, d, sums->square + l);
    }
  }
}

// The whole magnitude of nibble 0 of a high and a low word, kBits − 1 bits.
template <int kBits>
HWY_INLINE VU WholeMagnitude(VU high, VU low) {
  const DU du;
  VU seven = hn::Or(hn::ShiftLeft<4>(hn::And(high, hn::Set(du, 7u))), hn::And(low, hn::Set(du, 15u)));
  return hn::ShiftRight<8 - kBits>(seven);
}

// The sign of nibble 0 of a high word, where a float has it.
HWY_INLINE VU SignOf(VU word) {
  const DU du;
  return hn::And(hn::ShiftLeft<28>(word), hn::Set(du, 0x80000000u));
}

// ‖y − scale·c‖² of each token after each level; scales [level][16].
template <int kBits>
HWY_NOINLINE void MissTile(const QuantiserTables& tables, const float* HWY_RESTRICT y, size_t row,
                           const uint32_t* HWY_RESTRICT high, const uint32_t* HWY_RESTRICT low,
                           const float (*HWY_RESTRICT scales)[kTileTokens], TileSums* sums) {
  const DF d;
  const DU du;
  for (size_t l = 0; l < kTileTokens; l += kLanes) {
    VF scale[kTqLevels], miss[kTqLevels];
    for (int level = 0; level < kTqLevels; ++level) {
      scale[level] = hn::LoadU(d, scales[level] + l);
      miss[level] = hn::Zero(d);
    }
    for (uint32_t block = 0; block < tables.dim / 8; ++block) {
      VU high_word = hn::LoadU(du, high + block * kPlaneTokens + l), low_word = high_word;
      if constexpr (kBits > 4) low_word = hn::LoadU(du, low + block * kPlaneTokens + l);
#pragma GCC unroll kUnroll
      for (size_t j = 0; j < 8; ++j) {
        // y with the code's sign taken off, which is |y| where it is y's own.
        VF magnitude = hn::BitCast(
            d, hn::Xor(hn::BitCast(du, hn::LoadU(d, y + (8 * block + j) * row + l)), SignOf(high_word)));
        auto add = [&](int level, VF chosen) HWY_ATTR {
          VF off = hn::Sub(magnitude, hn::Mul(scale[level], chosen));
          miss[level] = hn::Add(miss[level], hn::Mul(off, off));
        };
        for (int level = 0; level < ShortLevels(kBits); ++level)
          add(level, LookupMagnitude(tables.kept[level], high_word));
        if constexpr (HasFullLevel(kBits)) {
          add(3, Lookup<size_t{1} << (kBits - 1)>(tables.full, WholeMagnitude<kBits>(high_word, low_word)));
          low_word = hn::ShiftRight<4>(low_word);
        }
        high_word = hn::ShiftRight<4>(high_word);
      }
    }
    for (int level = 0; level < kTqLevels; ++level) hn::Store(miss[level], d, sums->miss[level] + l);
  }
}

// scale · magnitude with the sign of nibble 0 of `word`.
HWY_INLINE VF Signed(VF magnitude, VU word, VF scale) {
  return hn::Mul(scale, hn::BitCast(DF(), hn::Or(hn::BitCast(DU(), magnitude), SignOf(word))));
}
// scale · centroid of nibble 0, codes of up to four bits: from the table of both signs by all four bits where
// a vector holds it.
template <int kBits>
HWY_INLINE VF SignedCentroid(const float* table, const float* with_signs, VU word, VF scale) {
  if constexpr (kLanes == 16) return hn::Mul(scale, LookupMagnitude(with_signs, word));
  return Signed(LookupMagnitude(table, word), word, scale);
}

// y = scale · centroid (+ mean) of codes of kBits kept bits (2…4 by the high nibble; more by both); mean [d]
// or null.
template <int kBits, bool kMean>
HWY_NOINLINE void DequantiseTile(const QuantiserTables& tables, const uint32_t* HWY_RESTRICT high,
                                 const uint32_t* HWY_RESTRICT low, const float* HWY_RESTRICT scales,
                                 const float* HWY_RESTRICT mean, size_t row, float* HWY_RESTRICT y) {
  const DF d;
  const DU du;
  const float* table = kBits > 4 ? tables.full : tables.kept[kBits - 2];
  const float* with_signs = tables.with_signs[std::min(kBits, 4) - 2];
  for (size_t l = 0; l < kTileTokens; l += kLanes) {
    VF scale = hn::LoadU(d, scales + l);
    for (uint32_t block = 0; block < tables.dim / 8; ++block) {
      VU high_word = hn::LoadU(du, high + block * kPlaneTokens + l), low_word = high_word;
      if constexpr (kBits > 4) low_word = hn::LoadU(du, low + block * kPlaneTokens + l);
#pragma GCC unroll kUnroll
      for (size_t j = 0; j < 8; ++j) {
        uint32_t c = 8 * block + j;
        VF value;
        if constexpr (kBits <= 4) {
          value = SignedCentroid<kBits>(table, with_signs, high_word, scale);
        } else {
          value = Signed(Lookup<size_t{1} << (kBits - 1)>(table, WholeMagnitude<kBits>(high_word, low_word)),
                         high_word, scale);
        }
        if constexpr (kMean) value = hn::Add(value, hn::Set(d, mean[c]));
        hn::StoreU(value, d, y + c * row + l);
        high_word = hn::ShiftRight<4>(high_word);
        if constexpr (kBits > 4) low_word = hn::ShiftRight<4>(low_word);
      }
    }
  }
}

// DequantiseTile for codes of up to four bits, with the butterflies of distances up to kRadix/2 made before a
// value is stored for the first time.
template <int kBits, bool kMean, size_t kRadix>
HWY_NOINLINE void DequantiseAndMix(const QuantiserTables& tables, const uint32_t* HWY_RESTRICT high,
                                   const float* HWY_RESTRICT scales, const float* HWY_RESTRICT mean,
                                   size_t row, float* HWY_RESTRICT y) {
  static_assert(kBits <= 4);
  const DF d;
  const float* table = tables.kept[kBits - 2];
  const float* with_signs = tables.with_signs[kBits - 2];
  for (size_t l = 0; l < kTileTokens; l += kLanes) {
    VF scale = hn::LoadU(d, scales + l);
    for (uint32_t c = 0; c < tables.dim; c += kRadix) {
      VF v[kRadix];
#pragma GCC unroll 2
      for (size_t block = 0; block < kRadix / 8; ++block) {
        VU word = hn::LoadU(DU(), high + (c / 8 + block) * kPlaneTokens + l);
#pragma GCC unroll 8
        for (size_t j = 0; j < 8; ++j) {
          VF value = SignedCentroid<kBits>(table, with_signs, word, scale);
          if constexpr (kMean) value = hn::Add(value, hn::Set(d, mean[c + 8 * block + j]));
          v[8 * block + j] = value;
          word = hn::ShiftRight<4>(word);
        }
      }
      Butterflies<kRadix>(v);
#pragma GCC unroll 16
      for (size_t k = 0; k < kRadix; ++k) hn::StoreU(v[k], d, y + (c + k) * row + l);
    }
  }
}

// How many tiles' sums go on side by side: a sum's additions wait for each other, and one vector of tokens is
// too few to fill the time.
inline constexpr uint32_t kTilesAtOnce = 2;

// Σ y² of each token of `kTilesAtOnce` tiles from `first` on.
HWY_MAYBE_UNUSED static HWY_NOINLINE void EnergyOfTiles(uint32_t dim, const Tiles& y, uint32_t first,
                                                        float (*energy)[kTileTokens]) {
  const DF d;
  for (size_t l = 0; l < kTileTokens; l += kLanes) {
    VF sums[kTilesAtOnce];
    for (VF& sum : sums) sum = hn::Zero(d);
    const float* at = y.at(first) + l;
    for (uint32_t c = 0; c < dim; ++c, at += y.row) {
#pragma GCC unroll 2
      for (uint32_t i = 0; i < kTilesAtOnce; ++i) {
        VF value = hn::LoadU(d, at + i * y.tile);
        sums[i] = hn::Add(sums[i], hn::Mul(value, value));
      }
    }
    for (uint32_t i = 0; i < kTilesAtOnce; ++i) hn::StoreU(sums[i], d, energy[i] + l);
  }
}

// Adds the tile's tokens, in order, to each channel's sum, and finds Σ y² of each token on the way.
HWY_MAYBE_UNUSED static HWY_NOINLINE void SumTile(uint32_t dim, const float* HWY_RESTRICT y, size_t row,
                                                  float* HWY_RESTRICT sums, float* HWY_RESTRICT energy) {
  const DF d;
  const DU du;
  // Beside the transposes where registers are many, else before them.
  constexpr bool kBeside = kLanes == 16;
  VF squares[kTileTokens / kLanes];
  for (VF& square : squares) square = hn::Zero(d);
  auto add = [&](size_t v, VF value) HWY_ATTR { squares[v] = hn::Add(squares[v], hn::Mul(value, value)); };
  for (uint32_t c = 0; !kBeside && c < dim; ++c) {
    for (size_t v = 0; v < kTileTokens / kLanes; ++v) add(v, hn::LoadU(d, y + c * row + v * kLanes));
  }
  for (uint32_t c0 = 0; c0 < dim; c0 += kLanes) {
    VF sum = hn::LoadU(d, sums + c0);
    for (size_t t0 = 0; t0 < kTileTokens; t0 += kLanes) {
      VU r[kLanes];
#pragma GCC unroll 16
      for (size_t k = 0; k < kLanes; ++k) {
        VF value = hn::LoadU(d, y + (c0 + k) * row + t0);
        if constexpr (kBeside) add(t0 / kLanes, value);
        r[k] = hn::BitCast(du, value);
      }
      TransposeLanes(du, r);
#pragma GCC unroll 16
      for (size_t k = 0; k < kLanes; ++k) sum = hn::Add(sum, hn::BitCast(d, r[k]));
    }
    hn::StoreU(sum, d, sums + c0);
  }
  for (size_t v = 0; v < kTileTokens / kLanes; ++v) hn::StoreU(squares[v], d, energy + v * kLanes);
}

// y −= mean for `kTilesAtOnce` tiles from `first` on, and the energies of what is left.
HWY_MAYBE_UNUSED static HWY_NOINLINE void RemoveMeanOfTiles(uint32_t dim, const float* HWY_RESTRICT mean,
                                                            const Tiles& y, uint32_t first,
                                                            float (*energy)[kTileTokens]) {
  const DF d;
  for (size_t l = 0; l < kTileTokens; l += kLanes) {
    VF sums[kTilesAtOnce];
    for (VF& sum : sums) sum = hn::Zero(d);
    float* at = y.at(first) + l;
    for (uint32_t c = 0; c < dim; ++c, at += y.row) {
      VF by = hn::Set(d, mean[c]);
#pragma GCC unroll 2
      for (uint32_t i = 0; i < kTilesAtOnce; ++i) {
        VF value = hn::Sub(hn::LoadU(d, at + i * y.tile), by);
        hn::StoreU(value, d, at + i * y.tile);
        sums[i] = hn::Add(sums[i], hn::Mul(value, value));
      }
    }
    for (uint32_t i = 0; i < kTilesAtOnce; ++i) hn::StoreU(sums[i], d, energy[i] + l);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace quire
HWY_AFTER_NAMESPACE();
#endif

// Per-target: rows or rotated tiles of one head to words of codes, scales and measured errors.
#if defined(QUIRE_CORE_CODEC_SIMD_ENCODE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUIRE_CORE_CODEC_SIMD_ENCODE_INL_H_
#undef QUIRE_CORE_CODEC_SIMD_ENCODE_INL_H_
#else
#define QUIRE_CORE_CODEC_SIMD_ENCODE_INL_H_
#endif

#include <bit>
#include <cmath>

#include "core/codec/head_pass.h"
#include "core/codec/simd/quantise-inl.h"
#include "core/codec/simd/rotate-inl.h"
#include "core/codec/simd/rows-inl.h"
#include "core/codec/simd/shape-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quire {
namespace HWY_NAMESPACE {

// Fills a tile from the caller's rows and rotates it, unless the input is rotated already; zeroes sinks.
HWY_MAYBE_UNUSED static HWY_NOINLINE void PrepareTile(const EncodePass& pass, uint32_t g) {
  float* y = pass.y.at(g);
  uint32_t dim = pass.tables->dim;
  if (pass.rows != nullptr) {
    const uint8_t* const* next = g + 1 < kTiles ? pass.rows + (g + 1) * kTileTokens : nullptr;
    FetchQuarter(pass.rows_dtype, next, dim, 0);
    LoadTile(pass.rows_dtype, pass.rows + g * kTileTokens, dim, pass.rotation.flips, pass.y.row, y);
    FetchQuarter(pass.rows_dtype, next, dim, 1);
    MixTile(pass.rotation, pass.y.row, nullptr, y);
    FetchQuarter(pass.rows_dtype, next, dim, 2);
    MixTile(pass.rotation, pass.y.row, pass.rotation.middle, y);
    FetchQuarter(pass.rows_dtype, next, dim, 3);
  }
  for (uint32_t t = g * kTileTokens; t < pass.first_token; ++t) {
    for (uint32_t c = 0; c < dim; ++c) y[c * pass.y.row + t % kTileTokens] = 0;
  }
}

// Asks for a quarter of what will be wanted after this head in place of tile g, while nothing else comes from
// memory.
HWY_INLINE void FetchNext(const EncodePass& pass, uint32_t g, size_t quarter) {
  if (pass.next_rows == nullptr) return;
  FetchQuarter(pass.rows_dtype, pass.next_rows + g * kTileTokens, pass.tables->dim, quarter);
}

// 1/rms of the tile's vectors that are coded, 0 for sinks and for vectors too small, whose columns and
// energies become 0.
HWY_MAYBE_UNUSED static HWY_NOINLINE void NormaliseTile(const EncodePass& pass, uint32_t g, float* energy,
                                                        float* inverse) {
  const DF d;
  VF root = hn::Set(d, std::sqrt(static_cast<float>(pass.tables->dim))), tiny = hn::Set(d, kTinyEnergy);
  bool all = pass.first_token <= g * kTileTokens;
  for (size_t l = 0; l < kTileTokens; l += kLanes) {
    VF square = hn::LoadU(d, energy + l);
    auto live = hn::Ge(square, tiny);
    all = all && hn::AllTrue(d, live);
    hn::StoreU(hn::IfThenElseZero(live, hn::Div(root, hn::Sqrt(square))), d, inverse + l);
    hn::StoreU(hn::IfThenElseZero(live, square), d, energy + l);
  }
  if (all) return;
  float* y = pass.y.at(g);
  for (uint32_t c = 0; c < pass.tables->dim; ++c) {
    for (size_t l = 0; l < kTileTokens; l += kLanes) {
      float* at = y + c * pass.y.row + l;
      auto live = hn::Gt(hn::LoadU(d, inverse + l), hn::Zero(d));
      hn::StoreU(hn::IfThenElseZero(live, hn::LoadU(d, at)), d, at);
    }
  }
}

// Indices of a tile, after `effort` alternations of least-squares scale and indices; then the sums that
// scales need.
template <int kBits, Measure kMeasure>
HWY_NOINLINE void CodeTile(const EncodePass& pass, uint32_t g, float* inverse, TileSums* sums) {
  const float* y = pass.y.at(g);
  uint32_t *high = pass.words->high + g * kTileTokens, *low = pass.words->low + g * kTileTokens;
  for (int i = 0; i < pass.effort; ++i) {
    IndexTile<kBits, Measure::kAlongAndSquare>(*pass.tables, y, pass.y.row, inverse, high, low, sums);
    const float* along = sums->along[LastLevel(kBits)];
    for (uint32_t t = 0; t < kTileTokens; ++t) {
      if (along[t] > 0) inverse[t] = sums->square[t] / along[t];
    }
  }
  IndexTile<kBits, kMeasure>(*pass.tables, y, pass.y.row, inverse, high, low, sums);
}

// The first token from `first` on whose energy is not finite, or −1.
HWY_INLINE int FirstNotFinite(uint32_t first_token, uint32_t g, const float* energy) {
  for (uint32_t i = 0; i < kTileTokens; ++i) {
    uint32_t t = g * kTileTokens + i;
    if (t >= first_token && !(energy[i] <= kLargestFloat)) return static_cast<int>(t);
  }
  return -1;
}

// The correction that brings `from` nearest to `wanted`, in steps; 0 where there is nothing to correct. And
// what it makes.
HWY_INLINE VI CorrectionOf(VF wanted, VF from) {
  const DF d;
  VF off = hn::Mul(hn::Sub(hn::Div(wanted, from), hn::Set(d, 1.0f)), hn::Set(d, 1 / kCorrectionStep));
  off = hn::Min(hn::Max(off, hn::Set(d, -kMaxCorrection)), hn::Set(d, kMaxCorrection));
  return hn::NearestInt(hn::IfThenElseZero(hn::Gt(from, hn::Zero(d)), off));
}
HWY_INLINE VF Corrected(VF scale, VI steps) {
  const DF d;
  return hn::Mul(scale,
                 hn::Add(hn::Set(d, 1.0f), hn::Mul(hn::ConvertTo(d, steps), hn::Set(d, kCorrectionStep))));
}

// The scale of every level of K for one tile: the unbiased one, bf16, then corrections towards each level's
// own.
template <int kBits>
HWY_NOINLINE void KeyScalesOfTile(const EncodePass& pass, uint32_t g, const float* energy,
                                  const TileSums& sums, TqKey* out, float (*scales)[kTileTokens]) {
  const DF d;
  const DU du;
  const DI di;
  alignas(64) uint32_t rounded[kTileTokens];
  alignas(64) int32_t steps[kTileTokens];
  for (int level = 0; level < kTqLevels; ++level) {
    if (!HasLevel(kBits, level)) continue;
    for (size_t l = 0; l < kTileTokens; l += kLanes) {
      VF along = hn::Load(d, sums.along[level] + l), square = hn::LoadU(d, energy + l);
      VF wanted = hn::IfThenElseZero(hn::Gt(along, hn::Zero(d)), hn::Div(square, along));
      if (level == 0) {
        VU bits = hn::ShiftRight<16>(RoundToBf16(du, wanted));
        hn::Store(bits, du, rounded + l);
        hn::StoreU(hn::BitCast(d, hn::ShiftLeft<16>(bits)), d, scales[0] + l);
      } else {
        VF from = hn::Mul(hn::LoadU(d, scales[level - 1] + l), hn::Set(d, pass.tables->ratio[level]));
        VI nearest = CorrectionOf(wanted, from);
        hn::Store(nearest, di, steps + l);
        hn::StoreU(Corrected(from, nearest), d, scales[level] + l);
      }
    }
    for (uint32_t i = 0; i < kTileTokens; ++i) {
      uint32_t t = g * kTileTokens + i;
      if (level == 0) {
        out->scales[t] = static_cast<uint16_t>(rounded[i]);
      } else {
        out->corrections[level][t] = static_cast<int8_t>(steps[i]);
      }
    }
  }
}

// int8 steps of the mean of every channel, and what they stand for.
HWY_MAYBE_UNUSED static HWY_NOINLINE void RoundMean(uint32_t dim, float count, float* sums, TqKey* out) {
  const DF d;
  const DI di;
  VF largest = hn::Zero(d), tokens = hn::Set(d, count);
  for (uint32_t c = 0; c < dim; c += kLanes) {
    VF mean = hn::Div(hn::LoadU(d, sums + c), tokens);
    largest = hn::Max(largest, hn::Abs(mean));
    hn::StoreU(mean, d, sums + c);
  }
  out->mean_step = ToBf16(hn::GetLane(hn::MaxOfLanes(d, largest)) / 127);
  float step = FromBf16(out->mean_step);
  alignas(64) int32_t steps[kLanes];
  for (uint32_t c = 0; c < dim; c += kLanes) {
    VF off = hn::Div(hn::LoadU(d, sums + c), hn::Set(d, step));
    off = hn::Min(hn::Max(off, hn::Set(d, -127.0f)), hn::Set(d, 127.0f));
    VI nearest = step > 0 ? hn::NearestInt(off) : hn::Zero(di);
    hn::StoreU(hn::Mul(hn::ConvertTo(d, nearest), hn::Set(d, step)), d, sums + c);
    hn::Store(nearest, di, steps);
    for (size_t i = 0; i < kLanes; ++i) out->mean[c + i] = static_cast<int8_t>(steps[i]);
  }
}

// Adds a tile's misses to the totals, token by token; what a level lacks is as the level before it.
template <int kBits>
HWY_INLINE void AddMisses(const TileSums& sums, CodingError* measured) {
  for (uint32_t i = 0; i < kTileTokens; ++i) {
    for (int level = 0; level < kTqLevels; ++level) {
      if (HasLevel(kBits, level)) measured->error[level] += sums.miss[level][i];
    }
  }
}
template <int kBits>
HWY_INLINE void FinishErrors(double tiny, CodingError* measured) {
  for (int level = 0; level < kTqLevels; ++level) {
    measured->error[level] =
        HasLevel(kBits, level) ? measured->error[level] + tiny : measured->error[level - 1];
  }
}

template <int kBits>
HWY_NOINLINE int EncodeKeyBits(const EncodePass& pass, TqKey* out) {
  uint32_t dim = pass.tables->dim;
  alignas(64) float energies[kTilesAtOnce][kTileTokens], inverse[kTileTokens], mean[kMaxCodecDim],
      scales[kTqLevels][kTileTokens] = {};
  std::fill_n(mean, dim, 0.0f);
  out->measured = CodingError();
  for (uint32_t g = 0; g < kTiles; ++g) {
    PrepareTile(pass, g);
    SumTile(dim, pass.y.at(g), pass.y.row, mean, energies[0]);
    if (int bad = FirstNotFinite(pass.first_token, g, energies[0]); bad >= 0) return bad;
    for (float e : energies[0]) out->measured.energy += e;  // a sink's is zero
  }
  RoundMean(dim, static_cast<float>(kTqTokens - pass.first_token), mean, out);
  double tiny = 0;  // what the vectors coded as zero lose
  TileSums sums;
  for (uint32_t g = 0; g < kTiles; ++g) {
    if (g % kTilesAtOnce == 0) RemoveMeanOfTiles(dim, mean, pass.y, g, energies);
    float* energy = energies[g % kTilesAtOnce];
    if (int bad = FirstNotFinite(pass.first_token, g, energy); bad >= 0) return bad;
    for (uint32_t i = 0; i < kTileTokens; ++i) {
      if (g * kTileTokens + i < pass.first_token) energy[i] = 0;
      tiny += energy[i] < kTinyEnergy ? energy[i] : 0;
    }
    NormaliseTile(pass, g, energy, inverse);
    FetchNext(pass, g, 0);
    CodeTile<kBits, Measure::kAlongAllLevels>(pass, g, inverse, &sums);
    if (pass.feedback != nullptr) {
      // To the scale of the plain codes.
      const float* along = sums.along[LastLevel(kBits)];
      for (uint32_t i = 0; i < kTileTokens; ++i) inverse[i] = along[i] > 0 ? along[i] / energy[i] : 0;
      ShapeTile<kBits>(pass, g, inverse, &sums);
    }
    FetchNext(pass, g, 1);
    FetchNext(pass, g, 2);
    KeyScalesOfTile<kBits>(pass, g, energy, sums, out, scales);
    MissTile<kBits>(*pass.tables, pass.y.at(g), pass.y.row, pass.words->high + g * kTileTokens,
                    pass.words->low + g * kTileTokens, scales, &sums);
    FetchNext(pass, g, 3);
    AddMisses<kBits>(sums, &out->measured);
  }
  FinishErrors<kBits>(tiny, &out->measured);
  return -1;
}

// V's scales from the wanted ones, of which `largest` is the greatest: base, codes and, for level 3,
// corrections to *out; the scales after level 0 and after level 3.
//
// A code is −16·log2(wanted/base), rounded. With both mantissas brought to a ratio in [1, 2), that is the
// exponent and the number of 2^((2i+1)/32) below the ratio, so below is compared x with base·2^((2i+1)/32)
// rounded down to float: exact, as no such product is a float.
template <bool kCorrected>
HWY_NOINLINE void ChooseValueScales(float largest, const float* wanted, TqValue* out, float* scales,
                                    float* corrected) {
  const DF d;
  const DU du;
  const DI di;
  out->scale_base = ToBf16(largest);
  float base = FromBf16(out->scale_base), smallest = ValueScale(base, kZeroScaleCode - 1);
  uint32_t base_bits = std::bit_cast<uint32_t>(base);
  float base_mantissa = std::bit_cast<float>((base_bits & 0x007FFFFFu) | 0x3F800000u);
  VF halves[16];
  for (int i = 0; i < 16; ++i) {
    double edge = base_mantissa * kScaleHalves[i];
    auto below = static_cast<float>(edge);
    if (below > edge) below = std::bit_cast<float>(std::bit_cast<uint32_t>(below) - 1);
    halves[i] = hn::Set(d, below);
  }
  alignas(64) int32_t codes[kTqTokens];
  for (size_t t = 0; t < kTqTokens; t += kLanes) {
    VF scale = hn::LoadU(d, wanted + t);
    VU bits = hn::BitCast(du, scale);
    VF x = hn::BitCast(d, hn::Or(hn::And(bits, hn::Set(du, 0x007FFFFFu)), hn::Set(du, 0x3F800000u)));
    VI exponent = hn::BitCast(di, hn::ShiftRight<23>(bits));
    auto less = hn::Lt(x, hn::Set(d, base_mantissa));
    x = hn::IfThenElse(less, hn::Add(x, x), x);
    VI one = hn::Set(di, 1), above = hn::Zero(di);
    exponent = hn::Sub(exponent, hn::IfThenElseZero(hn::RebindMask(di, less), one));
    for (const VF& half : halves)
      above = hn::Add(above, hn::IfThenElseZero(hn::RebindMask(di, hn::Gt(x, half)), one));
    exponent = hn::Sub(hn::Set(di, static_cast<int32_t>(base_bits >> 23)), exponent);
    VI code = hn::Sub(hn::ShiftLeft<4>(exponent), above);
    code = hn::Min(hn::Max(code, hn::Zero(di)), hn::Set(di, kZeroScaleCode - 1));
    // Nearer to nothing than to the smallest scale: nothing.
    auto some = hn::RebindMask(di, hn::Gt(scale, hn::Set(d, smallest / 2)));
    hn::Store(hn::IfThenElse(some, code, hn::Set(di, kZeroScaleCode)), di, codes + t);
  }
  for (size_t t = 0; t < kTqTokens; ++t) {
    out->scale_codes[t] = static_cast<uint8_t>(codes[t]);
    scales[t] = ValueScale(base, out->scale_codes[t]);
  }
  if constexpr (!kCorrected) return;
  for (size_t t = 0; t < kTqTokens; t += kLanes) {
    VF from = hn::LoadU(d, scales + t);
    VI steps = CorrectionOf(hn::LoadU(d, wanted + t), from);
    hn::Store(steps, di, codes + t);
    hn::StoreU(Corrected(from, steps), d, corrected + t);
  }
  for (size_t t = 0; t < kTqTokens; ++t) out->corrections[t] = static_cast<int8_t>(codes[t]);
}

template <int kBits>
HWY_NOINLINE int EncodeValueBits(const EncodePass& pass, TqValue* out) {
  uint32_t dim = pass.tables->dim;
  alignas(64) float energies[kTilesAtOnce][kTileTokens], inverse[kTileTokens], wanted[kTqTokens];
  out->measured = CodingError();
  double tiny = 0;
  float largest = 0;
  TileSums sums;
  for (uint32_t g = 0; g < kTiles; ++g) {
    if (g % kTilesAtOnce == 0) {
      for (uint32_t i = 0; i < kTilesAtOnce; ++i) PrepareTile(pass, g + i);
      EnergyOfTiles(dim, pass.y, g, energies);
    }
    float* energy = energies[g % kTilesAtOnce];
    if (int bad = FirstNotFinite(pass.first_token, g, energy); bad >= 0) return bad;
    for (uint32_t i = 0; i < kTileTokens; ++i) {
      float e = energy[i];
      out->measured.energy += e;
      tiny += e < kTinyEnergy ? e : 0;
    }
    NormaliseTile(pass, g, energy, inverse);
    CodeTile<kBits, Measure::kAlongAndSquare>(pass, g, inverse, &sums);
    FetchNext(pass, g, 0);
    FetchNext(pass, g, 1);
    const float* along = sums.along[LastLevel(kBits)];
    for (uint32_t i = 0; i < kTileTokens; ++i) {
      float scale = along[i] > 0 ? along[i] / sums.square[i] : 0;
      wanted[g * kTileTokens + i] = scale;
      largest = largest < scale ? scale : largest;
    }
  }
  alignas(64) float scales[kTqTokens], corrected[kTqTokens] = {};
  ChooseValueScales<HasLevel(kBits, 3)>(largest, wanted, out, scales, corrected);
  for (uint32_t g = 0; g < kTiles; ++g) {
    alignas(64) float by_level[kTqLevels][kTileTokens];
    for (int level = 0; level < kTqLevels; ++level) {
      std::copy_n((level < 3 ? scales : corrected) + g * kTileTokens, kTileTokens, by_level[level]);
    }
    MissTile<kBits>(*pass.tables, pass.y.at(g), pass.y.row, pass.words->high + g * kTileTokens,
                    pass.words->low + g * kTileTokens, by_level, &sums);
    FetchNext(pass, g, 2);
    FetchNext(pass, g, 3);
    AddMisses<kBits>(sums, &out->measured);
  }
  FinishErrors<kBits>(tiny, &out->measured);
  return -1;
}

}  // namespace HWY_NAMESPACE
}  // namespace quire
HWY_AFTER_NAMESPACE();
#endif

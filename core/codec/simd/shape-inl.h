// Per-target: codes of a tile of keys whose errors are shaped (core/codec/query_shape.h). Tokens stand across
// lanes; a channel's misses are made up for in ascending order of channels, each product and difference
// rounded by itself, so every vector width gives the same bits.
#if defined(QUIRE_CORE_CODEC_SIMD_SHAPE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUIRE_CORE_CODEC_SIMD_SHAPE_INL_H_
#undef QUIRE_CORE_CODEC_SIMD_SHAPE_INL_H_
#else
#define QUIRE_CORE_CODEC_SIMD_SHAPE_INL_H_
#endif

#include "core/codec/head_pass.h"
#include "core/codec/simd/quantise-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quire {
namespace HWY_NAMESPACE {

// Channels that are rounded together before the others hear of their misses: the codes of a word.
inline constexpr size_t kShapedAtOnce = 8;

// targets −= Σ over the block's channels of miss · feedback, for the channels behind the block.
HWY_MAYBE_UNUSED static HWY_NOINLINE void FeedBack(const float* HWY_RESTRICT feedback, size_t dim,
                                                   size_t block,
                                                   const float (*HWY_RESTRICT misses)[kTileTokens],
                                                   float* HWY_RESTRICT targets) {
  const DF d;
  const float* rows = feedback + block * dim;
  for (size_t c = block + kShapedAtOnce; c < dim; ++c) {
    VF factors[kShapedAtOnce];
    for (size_t j = 0; j < kShapedAtOnce; ++j) factors[j] = hn::Set(d, rows[j * dim + c]);
    for (size_t l = 0; l < kTileTokens; l += kLanes) {
      VF target = hn::Load(d, targets + c * kTileTokens + l);
      for (size_t j = 0; j < kShapedAtOnce; ++j)
        target = hn::Sub(target, hn::Mul(hn::Load(d, misses[j] + l), factors[j]));
      hn::Store(target, d, targets + c * kTileTokens + l);
    }
  }
}

// Codes of y · inverse, as words, and along sums of all levels; a token whose inverse is 0 has codes 0.
template <int kBits>
HWY_NOINLINE void ShapeTile(const EncodePass& pass, uint32_t g, const float* HWY_RESTRICT inverse,
                            TileSums* sums) {
  const DF d;
  const DU du;
  const QuantiserTables& tables = *pass.tables;
  const size_t dim = tables.dim;
  const float* y = pass.y.at(g);
  float* targets = pass.targets;
  uint32_t *high = pass.words->high + g * kTileTokens, *low = pass.words->low + g * kTileTokens;
  for (size_t l = 0; l < kTileTokens; l += kLanes) {
    VF factor = hn::LoadU(d, inverse + l);
    for (size_t c = 0; c < dim; ++c)
      hn::Store(hn::Mul(hn::LoadU(d, y + c * pass.y.row + l), factor), d, targets + c * kTileTokens + l);
    for (auto& along : sums->along) hn::Store(hn::Zero(d), d, along + l);
  }
  alignas(64) float misses[kShapedAtOnce][kTileTokens];
  for (size_t block = 0; block < dim; block += kShapedAtOnce) {
    for (size_t l = 0; l < kTileTokens; l += kLanes) {
      const auto live = hn::Gt(hn::LoadU(d, inverse + l), hn::Zero(d));
      VU high_word = hn::Zero(du), low_word = hn::Zero(du);
      VF along[kTqLevels];
      for (int level = 0; level < kTqLevels; ++level) along[level] = hn::Load(d, sums->along[level] + l);
      for (size_t j = 0; j < kShapedAtOnce; ++j) {
        const size_t c = block + j;
        // −0 becomes +0: only what is less than 0 has a sign.
        VF target = hn::Add(hn::Load(d, targets + c * kTileTokens + l), hn::Zero(d));
        VU cell = CellOf<kBits>(tables, hn::Abs(target));
        VU sign = hn::And(hn::BitCast(du, target), hn::Set(du, 0x80000000u));
        PushCode<kBits>(cell, sign, high_word, low_word);
        VF chosen = FullCentroid<kBits>(tables, cell);
        VF miss =
            hn::IfThenElseZero(live, hn::Sub(target, hn::BitCast(d, hn::Or(hn::BitCast(du, chosen), sign))));
        hn::Store(miss, d, misses[j] + l);
        for (size_t k = j + 1; k < kShapedAtOnce; ++k) {
          float* at = targets + (block + k) * kTileTokens + l;
          hn::Store(hn::Sub(hn::Load(d, at), hn::Mul(miss, hn::Set(d, pass.feedback[c * dim + block + k]))),
                    d, at);
        }
        VF value = hn::BitCast(d, hn::Xor(hn::BitCast(du, hn::LoadU(d, y + c * pass.y.row + l)), sign));
        AddAlongShortLevels<kBits>(tables, value, cell, along);
        if constexpr (HasFullLevel(kBits)) along[3] = hn::Add(along[3], hn::Mul(value, chosen));
      }
      for (int level = 0; level < kTqLevels; ++level) hn::Store(along[level], d, sums->along[level] + l);
      hn::StoreU(high_word, du, high + block / 8 * kPlaneTokens + l);
      if constexpr (kBits > 4) hn::StoreU(low_word, du, low + block / 8 * kPlaneTokens + l);
    }
    FeedBack(pass.feedback, dim, block, misses, targets);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace quire
HWY_AFTER_NAMESPACE();
#endif

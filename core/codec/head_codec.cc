#include "core/codec/head_codec.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/codec/head_pass.h"
#include "core/codec/tiles.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/codec/head_codec.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "core/codec/simd/encode-inl.h"
#include "core/codec/simd/planes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quire {
namespace HWY_NAMESPACE {

int EncodeKey(const EncodePass& pass, TqKey* out) {
  switch (pass.tables->bits) {
    case 2:
      return EncodeKeyBits<2>(pass, out);
    case 3:
      return EncodeKeyBits<3>(pass, out);
    case 4:
      return EncodeKeyBits<4>(pass, out);
    case 5:
      return EncodeKeyBits<5>(pass, out);
    case 6:
      return EncodeKeyBits<6>(pass, out);
    case 7:
      return EncodeKeyBits<7>(pass, out);
    default:
      return EncodeKeyBits<8>(pass, out);
  }
}

int EncodeValue(const EncodePass& pass, TqValue* out) {
  switch (pass.tables->bits) {
    case 2:
      return EncodeValueBits<2>(pass, out);
    case 3:
      return EncodeValueBits<3>(pass, out);
    case 4:
      return EncodeValueBits<4>(pass, out);
    case 5:
      return EncodeValueBits<5>(pass, out);
    case 6:
      return EncodeValueBits<6>(pass, out);
    case 7:
      return EncodeValueBits<7>(pass, out);
    default:
      return EncodeValueBits<8>(pass, out);
  }
}

template <int kBits>
HWY_NOINLINE void IndexBits(const QuantiserTables& tables, const float* inverse, const Tiles& y,
                            CodeWords* words) {
  for (uint32_t g = 0; g < kTiles; ++g) {
    IndexTile<kBits, Measure::kNothing>(tables, y.at(g), y.row, inverse + g * kTileTokens,
                                        words->high + g * kTileTokens, words->low + g * kTileTokens, nullptr);
  }
}

void Index(const QuantiserTables& tables, const float* inverse, const Tiles& y, CodeWords* words) {
  switch (tables.bits) {
    case 1:
      return IndexBits<1>(tables, inverse, y, words);
    case 2:
      return IndexBits<2>(tables, inverse, y, words);
    case 3:
      return IndexBits<3>(tables, inverse, y, words);
    case 4:
      return IndexBits<4>(tables, inverse, y, words);
    case 5:
      return IndexBits<5>(tables, inverse, y, words);
    case 6:
      return IndexBits<6>(tables, inverse, y, words);
    case 7:
      return IndexBits<7>(tables, inverse, y, words);
    default:
      return IndexBits<8>(tables, inverse, y, words);
  }
}

void PackWords(FragmentOrder order, uint32_t dim, int bits, HeadWorkspace* work, uint8_t* const* planes) {
  PackHead(order, dim, bits, &work->words, &work->units, planes);
}

// Dequantises and makes the rotation's first pass, where there are registers enough to do both at once.
template <int kBits, bool kMean>
HWY_INLINE bool DequantiseMixing(const DecodePass& pass, uint32_t first, HeadWorkspace* work) {
  if constexpr (kBits <= 4) {
    const uint32_t* words = work->words.high + first;
    if (FirstRadix(pass.rotation->power) == 8) {
      DequantiseAndMix<kBits, kMean, 8>(*pass.tables, words, pass.scales + first, pass.mean, kTileTokens,
                                        work->y);
      return true;
    }
    if constexpr (kLanes == 16) {
      DequantiseAndMix<kBits, kMean, 16>(*pass.tables, words, pass.scales + first, pass.mean, kTileTokens,
                                         work->y);
      return true;
    }
  }
  return false;
}

template <int kBits, bool kMean>
HWY_NOINLINE void DecodeTiles(const DecodePass& pass, HeadWorkspace* work) {
  uint32_t dim = pass.tables->dim;
  for (uint32_t g = 0; g < kTiles; ++g) {
    uint32_t first = g * kTileTokens;
    const uint8_t* const* next = pass.past_caches ? nullptr
                                 : g + 1 < kTiles ? pass.rows + first + kTileTokens
                                                  : pass.next_rows;
    FetchQuarter(pass.dtype, next, dim, 0);
    bool mixing = pass.rotation != nullptr && DequantiseMixing<kBits, kMean>(pass, first, work);
    if (!mixing) {
      DequantiseTile<kBits, kMean>(*pass.tables, work->words.high + first, work->words.low + first,
                                   pass.scales + first, pass.mean, kTileTokens, work->y);
    }
    if (pass.rotation != nullptr) {
      FetchQuarter(pass.dtype, next, dim, 1);
      mixing ? MixTile<true>(*pass.rotation, kTileTokens, nullptr, work->y)
             : MixTile(*pass.rotation, kTileTokens, nullptr, work->y);
      FetchQuarter(pass.dtype, next, dim, 2);
      MixTile(*pass.rotation, kTileTokens, pass.rotation->middle, work->y);
      FetchQuarter(pass.dtype, next, dim, 3);
    }
    StoreTile(pass.dtype, work->y, kTileTokens, dim, pass.flips, pass.rows + first, pass.finite,
              pass.past_caches);
  }
}

template <int kBits>
HWY_INLINE void DecodeBits(const DecodePass& pass, HeadWorkspace* work) {
  pass.mean != nullptr ? DecodeTiles<kBits, true>(pass, work) : DecodeTiles<kBits, false>(pass, work);
}

void DecodeKept(const DecodePass& pass, HeadWorkspace* work) {
  switch (pass.kept) {
    case 2:
      return DecodeBits<2>(pass, work);
    case 3:
      return DecodeBits<3>(pass, work);
    case 4:
      return DecodeBits<4>(pass, work);
    case 5:
      return DecodeBits<5>(pass, work);
    case 6:
      return DecodeBits<6>(pass, work);
    case 7:
      return DecodeBits<7>(pass, work);
    default:
      return DecodeBits<8>(pass, work);
  }
}

void Decode(const DecodePass& pass, HeadWorkspace* work) {
  for (size_t quarter = 0; quarter < 4 && !pass.past_caches; ++quarter)
    FetchQuarter(pass.dtype, pass.rows, pass.tables->dim, quarter);
  UnpackHead(pass.order, pass.tables->dim, pass.kept, pass.planes, &work->words, &work->units);
  DecodeKept(pass, work);
  if (pass.past_caches) hwy::FlushStream();
}

const char* TargetName() { return hwy::TargetName(HWY_TARGET); }

}  // namespace HWY_NAMESPACE
}  // namespace quire
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quire {

HWY_EXPORT(EncodeKey);
HWY_EXPORT(EncodeValue);
HWY_EXPORT(Index);
HWY_EXPORT(PackWords);
HWY_EXPORT(Decode);
HWY_EXPORT(TargetName);

namespace {

alignas(64) constexpr uint32_t kNoFlips[kMaxCodecDim] = {};  // also a row of zeros

// [d][64] floats of tests and tools, which are rotated already.
EncodePass PassOf(const Codebook& book, int effort, uint32_t first_token, float* y) {
  EncodePass pass{};
  pass.tables = &QuantiserTables::Of(book);
  pass.effort = effort;
  pass.first_token = first_token;
  pass.y = {y, kPlaneTokens, kTileTokens};
  pass.words = &HeadWorkspace::OfThread().words;
  return pass;
}

// Whether nothing that comes of these can overflow or be a NaN: always, but in objects made to be decoded
// into nonsense.
bool AllModest(const float* values, size_t n) {
  float largest = 0;
  for (size_t i = 0; i < n; ++i) largest += std::fabs(values[i]);
  return largest < 0x1p100f;
}

struct RowPointers {
  const uint8_t* at[kPlaneTokens];
  RowPointers(const HeadRows& rows, uint32_t first_token, uint32_t count = kPlaneTokens) {
    const auto* data = static_cast<const uint8_t*>(rows.data);
    ptrdiff_t bytes = rows.token_stride * static_cast<ptrdiff_t>(SizeOf(rows.dtype));
    for (uint32_t t = 0; t < count; ++t) {
      at[t] = t < first_token ? reinterpret_cast<const uint8_t*>(kNoFlips)
                              : data + static_cast<ptrdiff_t>(t) * bytes;
    }
  }
};

EncodePass PassOf(const Rotation& rotation, const Codebook& book, int effort, uint32_t first_token,
                  const HeadRows& rows, const RowPointers& pointers, const RowPointers* next,
                  HeadWorkspace& work) {
  return {&QuantiserTables::Of(book),
          effort,
          first_token,
          {work.y, kTileTokens, size_t{kTileTokens} * book.dim()},
          &work.words,
          pointers.at,
          rows.dtype,
          rotation.tables(),
          next != nullptr ? next->at : nullptr,
          nullptr,
          nullptr};
}

// Rows to words by `encode`, which says as EncodeKeyHead what is wrong, and words to planes.
template <typename Encode>
int EncodeHead(FragmentOrder order, const Rotation& rotation, const Codebook& book, int effort,
               uint32_t first_token, const HeadRows& rows, const PlanePointers& planes, const HeadRows* next,
               Encode encode) {
  HeadWorkspace& work = HeadWorkspace::OfThread();
  RowPointers pointers(rows, first_token);
  std::optional<RowPointers> next_pointers;
  if (next != nullptr) next_pointers.emplace(*next, 0);
  int bad = encode(PassOf(rotation, book, effort, first_token, rows, pointers,
                          next_pointers ? &*next_pointers : nullptr, work));
  if (bad < 0) HWY_DYNAMIC_DISPATCH(PackWords)(order, book.dim(), book.bits(), &work, planes.data());
  return bad;
}

}  // namespace

int EncodeTqKey(const Codebook& book, int effort, uint32_t first_token, float* y, float* work, TqKey* out) {
  EncodePass pass = PassOf(book, effort, first_token, y);
  int bad = HWY_DYNAMIC_DISPATCH(EncodeKey)(pass, out);
  if (bad < 0) CodesFromWords(book.dim(), book.bits(), *pass.words, out->codes.data());
  return bad;
}

int EncodeTqValue(const Codebook& book, int effort, uint32_t first_token, float* y, float* work,
                  TqValue* out) {
  EncodePass pass = PassOf(book, effort, first_token, y);
  int bad = HWY_DYNAMIC_DISPATCH(EncodeValue)(pass, out);
  if (bad < 0) CodesFromWords(book.dim(), book.bits(), *pass.words, out->codes.data());
  return bad;
}

void TqIndex(const Codebook& book, const float* y, const float* inverse_scales, uint8_t* codes) {
  EncodePass pass = PassOf(book, 0, 0, const_cast<float*>(y));  // only read
  HWY_DYNAMIC_DISPATCH(Index)(*pass.tables, inverse_scales, pass.y, pass.words);
  CodesFromWords(book.dim(), book.bits(), *pass.words, codes);
}

int EncodeKeyHead(const Rotation& rotation, const Codebook& book, int effort, uint32_t first_token,
                  const HeadRows& rows, TqKey* out, const PlanePointers& planes, const HeadRows* next,
                  const QueryShape* shape) {
  return EncodeHead(FragmentOrder::kKey, rotation, book, effort, first_token, rows, planes, next,
                    [&](EncodePass pass) {
                      pass.feedback = shape != nullptr ? shape->feedback() : nullptr;
                      pass.targets = HeadWorkspace::OfThread().targets;
                      return HWY_DYNAMIC_DISPATCH(EncodeKey)(pass, out);
                    });
}

int EncodeValueHead(const Rotation& rotation, const Codebook& book, int effort, uint32_t first_token,
                    const HeadRows& rows, TqValue* out, const PlanePointers& planes, const HeadRows* next) {
  return EncodeHead(FragmentOrder::kValue, rotation, book, effort, first_token, rows, planes, next,
                    [&](const EncodePass& pass) { return HWY_DYNAMIC_DISPATCH(EncodeValue)(pass, out); });
}

void DecodeHead(const Rotation* rotation, const Codebook& book, int kept, FragmentOrder order,
                const ConstPlanePointers& planes, const float* scales, const float* mean,
                uint32_t first_token, const MutableHeadRows& rows, const MutableHeadRows* next,
                Destination destination) {
  HeadWorkspace& work = HeadWorkspace::OfThread();
  uint8_t* pointers[kPlaneTokens];
  auto* data = static_cast<uint8_t*>(rows.data);
  ptrdiff_t bytes = rows.token_stride * static_cast<ptrdiff_t>(SizeOf(rows.dtype));
  for (uint32_t t = 0; t < kPlaneTokens; ++t) {
    // Sinks' rows end in working memory that nobody reads.
    pointers[t] = t < first_token ? reinterpret_cast<uint8_t*>(work.units.high)
                                  : data + static_cast<ptrdiff_t>(t) * bytes;
  }
  const bool aligned = (reinterpret_cast<uintptr_t>(rows.data) | static_cast<uintptr_t>(bytes)) % 64 == 0;
  const bool past_caches = destination == Destination::kMemory && aligned;
  std::optional<RowPointers> next_pointers;
  if (next != nullptr && !past_caches)
    next_pointers.emplace(HeadRows{next->data, next->dtype, next->token_stride}, 0, kTileTokens);
  RotationTables tables{};
  if (rotation != nullptr) tables = rotation->tables();
  HWY_DYNAMIC_DISPATCH(Decode)
  ({rotation != nullptr ? &tables : nullptr, &QuantiserTables::Of(book), kept, order, planes.data(), scales,
    mean, rotation != nullptr ? tables.flips : kNoFlips, rows.dtype, pointers,
    AllModest(scales, kPlaneTokens) && (mean == nullptr || AllModest(mean, book.dim())),
    next_pointers ? next_pointers->at : nullptr, past_caches},
   &work);
}

const char* CodecTargetName() { return HWY_DYNAMIC_DISPATCH(TargetName)(); }

}  // namespace quire
#endif  // HWY_ONCE

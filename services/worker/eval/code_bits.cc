#include "services/worker/eval/code_bits.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/block/slice_map.h"

namespace quire::worker {
namespace {

int MostBits(const LayerCodec& codec) { return std::max(codec.k_bits, codec.v_bits); }

// Levels of a layer of these bits: two bits, one, one, all the rest.
int LevelsOfBits(int bits) { return bits > 4 ? 4 : std::max(1, bits - 1); }
int BitsAt(int bits, int levels) { return levels >= 4 ? bits : std::min(bits, 1 + levels); }

CodeBits TqBits(const LayerCodec& codec, double d, int levels) {
  const double block = kBlockTokens * d;
  const int k_levels = std::min(levels, LevelsOfBits(codec.k_bits));
  CodeBits bits;
  // Beside the indices K has a bf16 scale a vector, an int8 correction of it a level, and a block mean of
  // int8 and one bf16 step; V an int8 scale a vector, one bf16 base a block, and a correction if it reaches
  // level 3.
  bits.k = BitsAt(codec.k_bits, levels) + (16 + 8 * (k_levels - 1)) / d + (8 * d + 16) / block;
  bits.v = BitsAt(codec.v_bits, levels) + (levels >= 4 && codec.v_bits > 4 ? 16 : 8) / d + 16 / block;
  return bits;
}

absl::StatusOr<CodeBits> LayerBits(const Layout& layout, const LayerCodec& codec, double d, int levels) {
  switch (codec.codec) {
    case CodecId::kRaw: {
      const double raw = 8.0 * static_cast<double>(SizeOf(layout.dtype));
      return CodeBits{raw, raw};
    }
    case CodecId::kFp8:  // a bf16 scale a vector
      return CodeBits{8 + 16 / d, 8 + 16 / d};
    case CodecId::kTqProd:  // a bf16 scale and the rest's norm a vector
      return CodeBits{codec.k_bits + 32 / d, codec.v_bits + 32 / d};
    case CodecId::kTq:
      return TqBits(codec, d, levels);
    default:
      return absl::UnimplementedError(
          absl::StrCat("the bits of codec ", std::string(Name(codec.codec)), " are not known"));
  }
}

}  // namespace

absl::StatusOr<CodeBits> BitsOf(const Layout& layout, const CodecSpec& spec, int levels) {
  CodeBits sum;
  for (uint32_t i = 0; i < layout.layers.size(); ++i) {
    QUIRE_ASSIGN_OR_RETURN(
        const CodeBits bits,
        LayerBits(layout, spec.ForLayer(i), layout.layers[i].key_dim(), levels == 0 ? kMaxLevels : levels));
    sum.k += bits.k / static_cast<double>(layout.layers.size());
    sum.v += bits.v / static_cast<double>(layout.layers.size());
  }
  return sum;
}

absl::StatusOr<int> LevelsFor(const Layout& layout, const CodecSpec& spec, int keep_bits) {
  if (spec.codec() != CodecId::kTq) {
    return absl::InvalidArgumentError(absl::StrCat(spec.ToString(), " can't be read at ", keep_bits,
                                                   " bits: only tq codes have levels to drop"));
  }
  int most = 0;
  for (uint32_t i = 0; i < layout.layers.size(); ++i) most = std::max(most, MostBits(spec.ForLayer(i)));
  if (keep_bits < 2 || keep_bits > most || (keep_bits > 4 && keep_bits < most)) {
    return absl::InvalidArgumentError(
        absl::StrCat("codes of ", spec.ToString(), " can't be read at ", keep_bits,
                     " bits: levels end at 2, 3, 4 and all of at most ", most, " bits"));
  }
  return LevelsOfBits(keep_bits);
}

uint64_t TokenElements(const Layout& layout) {
  uint64_t elements = 0;
  for (const LayerLayout& layer : layout.layers) {
    for (const StreamLayout& stream : layer.streams) elements += uint64_t{stream.heads} * stream.dim;
  }
  return elements;
}

absl::StatusOr<double> ObjectBitsOf(const Layout& layout, const CodecSpec& spec) {
  const Part whole = Part::Whole(layout);
  QUIRE_ASSIGN_OR_RETURN(const SliceMap map, SliceMap::Create(layout, whole, LayerCodecs(spec, layout, whole),
                                                              /*sink_tokens=*/0));
  return 8.0 * static_cast<double>(map.ObjectBytes(map.levels())) /
         static_cast<double>(TokenElements(layout) * kBlockTokens);
}

}  // namespace quire::worker

#include "core/block/slice_map.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/block/object.h"
#include "core/codec/planes.h"
#include "core/codec/tq.h"

namespace quire {
namespace {

static_assert(kMaxLevels == kTqLevels && kBlockTokens == kTqTokens);

uint64_t RoundUp16(uint64_t n) { return (n + 15) / 16 * 16; }

absl::Status ValidateCodec(const LayerLayout& layer, const LayerCodec& codec, size_t index) {
  auto bad = [&](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat("slice map: layer ", index, ": ", what));
  };
  switch (codec.codec) {
    case CodecId::kRaw:
    case CodecId::kFp8:
      if (codec.k_bits == 0 && codec.v_bits == 0) return absl::OkStatus();
      return bad(absl::StrCat(std::string(Name(codec.codec)), " has no bits"));
    case CodecId::kTq:
    case CodecId::kTqProd: {
      if (codec.k_bits < 2 || codec.k_bits > 8)
        return bad(absl::StrCat("K has 2 to 8 bits, not ", codec.k_bits));
      if (layer.latent()) {
        return codec.v_bits == 0 ? absl::OkStatus() : bad("a latent has no V bits");
      }
      if (codec.v_bits < 2 || codec.v_bits > 8)
        return bad(absl::StrCat("V has 2 to 8 bits, not ", codec.v_bits));
      return absl::OkStatus();
    }
    case CodecId::kQpc:
      return absl::UnimplementedError(
          absl::StrCat("layer ", index, ": codec qpc does not code KV blocks in this version"));
  }
  return bad(absl::StrCat("codec ", static_cast<int>(codec.codec), " is unknown"));
}

uint64_t SliceBytes(int level, const Layout& layout, const LayerLayout& layer, const LayerCodec& codec) {
  uint32_t k_dim = layer.key_dim(), v_dim = layer.value_dim();
  if (codec.codec == CodecId::kTq) return TqSlice::At(level, k_dim, codec.k_bits, v_dim, codec.v_bits).bytes;
  if (level > 0) return 0;
  if (codec.codec != CodecId::kRaw) return FlatSlice::At(codec, k_dim, v_dim).bytes;
  return RoundUp16(uint64_t{kBlockTokens} * (k_dim + v_dim) * SizeOf(layout.dtype));
}

int LevelsUsed(const LayerCodec& codec) {
  int bits = std::max(codec.k_bits, codec.v_bits);
  return codec.codec != CodecId::kTq ? 1 : std::min(bits - 1, kMaxLevels);
}

}  // namespace

TqSlice TqSlice::At(int level, uint32_t k_dim, int k_bits, uint32_t v_dim, int v_bits) {
  TqSlice slice;
  auto put = [&](Extent* extent, uint64_t bytes) {
    *extent = {slice.bytes, bytes};
    slice.bytes += bytes;
  };
  auto plane_bits = [&](int bits) {
    return level == 0 ? 2 : KeptBits(bits, level) - KeptBits(bits, level - 1);
  };
  bool k = HasLevel(k_bits, level), v = v_dim > 0 && HasLevel(v_bits, level);
  put(&slice.k_mean, level == 0 ? k_dim : 0);
  put(&slice.scalars, level == 0 ? 16 : 0);
  put(&slice.k_scales, !k ? 0 : level == 0 ? 2 * kBlockTokens : kBlockTokens);
  put(&slice.k_planes, k ? PlaneBytes(k_dim, plane_bits(k_bits)) : 0);
  put(&slice.v_scales, v && (level == 0 || level == 3) ? kBlockTokens : 0);
  put(&slice.v_planes, v ? PlaneBytes(v_dim, plane_bits(v_bits)) : 0);
  return slice;
}

FlatSlice FlatSlice::At(const LayerCodec& codec, uint32_t k_dim, uint32_t v_dim) {
  FlatSlice slice;
  auto put = [&](Extent* extent, uint64_t bytes) {
    *extent = {slice.bytes, bytes};
    slice.bytes += bytes;
  };
  bool prod = codec.codec == CodecId::kTqProd;
  auto stream = [&](Stream* out, uint32_t dim, int bits) {
    put(&out->scales, dim > 0 ? 2 * kBlockTokens : 0);
    put(&out->rests, dim > 0 && prod ? 2 * kBlockTokens : 0);
    put(&out->codes, prod ? PlaneBytes(dim, bits) : uint64_t{kBlockTokens} * dim);
  };
  stream(&slice.k, k_dim, codec.k_bits);
  stream(&slice.v, v_dim, codec.v_bits);
  return slice;
}

std::vector<LayerCodec> LayerCodecs(const CodecSpec& spec, const Layout& layout, const Part& part) {
  std::vector<LayerCodec> codecs;
  for (uint32_t l = part.layer_begin; l < part.layer_end; ++l) {
    codecs.push_back(spec.ForLayer(l));
    if (layout.layers[l].latent()) codecs.back().v_bits = 0;
  }
  return codecs;
}

absl::StatusOr<SliceMap> SliceMap::Create(const Layout& layout, const Part& part,
                                          const std::vector<LayerCodec>& codecs, uint32_t sink_tokens) {
  QUIRE_RETURN_IF_ERROR(layout.Validate());
  QUIRE_RETURN_IF_ERROR(part.Validate(layout));
  if (codecs.size() != part.layers()) {
    return absl::InvalidArgumentError(
        absl::StrCat("slice map: ", codecs.size(), " codecs for ", part.layers(), " layers"));
  }
  if (sink_tokens > kMaxSinkTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("slice map: at most ", kMaxSinkTokens, " sink tokens, not ", sink_tokens));
  }
  SliceMap map;
  map.layers_ = part.layers();
  map.heads_ = part.heads();
  int levels = 1;
  for (uint32_t l = 0; l < map.layers_; ++l) {
    QUIRE_RETURN_IF_ERROR(ValidateCodec(layout.layers[part.layer_begin + l], codecs[l], l));
    if (part.HeadsOf(layout.layers[part.layer_begin + l]) > 0)
      levels = std::max(levels, LevelsUsed(codecs[l]));
  }
  map.sinks_.resize(map.layers_);
  map.sink_checksums_.resize(map.layers_);
  uint64_t at = 0;  // from the end of the header, whose size is known once the checksums are counted
  auto place = [&](uint64_t bytes, uint32_t* checksum) {
    Extent extent{at, bytes};
    at += bytes;
    *checksum = static_cast<uint32_t>(map.checksums_);
    map.checksums_ += bytes > 0;
    return extent;
  };
  for (int level = 0; level < levels; ++level) {
    uint64_t level_begin = at;
    for (uint32_t l = 0; l < map.layers_; ++l) {
      const LayerLayout& layer = layout.layers[part.layer_begin + l];
      uint32_t heads = part.HeadsOf(layer);
      uint64_t layer_begin = at;
      if (level == 0) {
        uint64_t elements = codecs[l].codec != CodecId::kRaw
                                ? uint64_t{heads} * sink_tokens * (layer.key_dim() + layer.value_dim())
                                : 0;
        map.sinks_[l] = place(RoundUp16(elements * SizeOf(layout.dtype)), &map.sink_checksums_[l]);
      }
      uint64_t bytes = SliceBytes(level, layout, layer, codecs[l]);
      for (uint32_t h = 0; h < map.heads_; ++h) {
        map.slices_.push_back(place(h < heads ? bytes : 0, &map.slice_checksums_.emplace_back()));
      }
      map.layer_extents_.push_back({layer_begin, at - layer_begin});
    }
    map.level_.push_back({level_begin, at - level_begin});
  }
  map.header_bytes_ = HeaderBytesFor(map.layers_, levels, map.checksums_);
  for (auto* extents : {&map.level_, &map.slices_, &map.sinks_, &map.layer_extents_}) {
    for (Extent& extent : *extents) extent.offset += map.header_bytes_;
  }
  return map;
}

Extent SliceMap::slice(int level, uint32_t layer, uint32_t head) const {
  return slices_[(static_cast<size_t>(level) * layers_ + layer) * heads_ + head];
}

Extent SliceMap::sinks(uint32_t layer) const { return sinks_[layer]; }

Extent SliceMap::layer(int level, uint32_t layer) const {
  return layer_extents_[static_cast<size_t>(level) * layers_ + layer];
}

absl::StatusOr<int> SliceMap::LevelsOf(uint64_t bytes) const {
  for (int n = 1; n <= levels(); ++n) {
    if (ObjectBytes(n) == bytes) return n;
  }
  return absl::DataLossError(absl::StrCat("object of ", bytes,
                                          " bytes does not end on a level boundary; all ", levels(),
                                          " levels have ", levels() > 0 ? ObjectBytes(levels()) : 0));
}

size_t SliceMap::ChecksumIndex(int level, uint32_t layer, uint32_t head) const {
  return slice_checksums_[(static_cast<size_t>(level) * layers_ + layer) * heads_ + head];
}

size_t SliceMap::SinkChecksumIndex(uint32_t layer) const { return sink_checksums_[layer]; }

}  // namespace quire

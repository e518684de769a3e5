#include "cuda/block_batch.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/codec/planes.h"
#include "core/codec/tq.h"

namespace quire::cuda {
namespace {

uint64_t Stride(const SliceMap& map, int level, uint32_t layer, uint32_t heads) {
  return heads > 1 ? map.slice(level, layer, 1).offset - map.slice(level, layer, 0).offset : 0;
}

// The tasks of one layer: K (or a latent) and V.
class LayerTasks {
 public:
  LayerTasks(const BlockShape& shape, bool first_block, uint32_t layer, int levels, uint8_t* object)
      : shape_(shape),
        map_(shape.map(first_block)),
        layer_(layer),
        levels_(levels),
        object_(object),
        layout_(shape.layout().layers[shape.part().layer_begin + layer]),
        heads_(shape.part().HeadsOf(layout_)),
        sinks_(first_block ? kMaxSinkTokens : 0) {}

  absl::Status Add(const MutableLayerView& view, BlockTasks* out) const {
    if (heads_ == 0) return absl::OkStatus();
    bool latent = layout_.latent();
    if (view.key.data == nullptr || (!latent && view.value.data == nullptr)) {
      return absl::InvalidArgumentError(absl::StrCat("block tasks: layer ", layer_, " has no tensor for ",
                                                     view.key.data == nullptr ? "K" : "V"));
    }
    if (shape_.codecs()[layer_].codec == CodecId::kRaw) return AddRaw(view, out);
    out->tasks.push_back(Stream(layout_.latent() ? 2 : 0, view.key));
    if (!latent) out->tasks.push_back(Stream(1, view.value));
    if (sinks_ > 0) {
      RowsTask rows = Rows(view, sinks_);
      rows.rows = object_ + map_.sinks(layer_).offset;
      rows.head_bytes = static_cast<uint32_t>(map_.sinks(layer_).length / heads_);
      out->rows.push_back(rows);
    }
    return absl::OkStatus();
  }

 private:
  ShapedTask Stream(uint8_t kind, const MutableStreamView& view) const {
    const LayerCodec& codec = shape_.codecs()[layer_];
    ShapedTask shaped;
    shaped.codec = codec.codec;
    shaped.dim = kind == 1 ? layout_.value_dim() : layout_.key_dim();
    shaped.heads = heads_;
    shaped.dtype = view.dtype;
    shaped.layer = shape_.part().layer_begin + layer_;
    shaped.first_head = shape_.part().head_begin;
    TqTask& task = shaped.task;
    task.tensor = view.data;
    task.token_stride = view.token_stride;
    task.head_stride = view.head_stride;
    task.kind = kind;
    task.bits = kind == 1 ? codec.v_bits : codec.k_bits;
    task.levels = static_cast<uint8_t>(levels_);
    task.first_token = static_cast<uint8_t>(sinks_);
    if (codec.codec == CodecId::kTq) {
      PlaceTq(codec, &task);
    } else {
      PlaceFlat(codec, shaped.dim, &task);
    }
    return shaped;
  }

  void PlaceTq(const LayerCodec& codec, TqTask* out) const {
    TqTask& task = *out;
    for (int level = 0; level < levels_; ++level) {
      Extent extent = map_.slice(level, layer_, 0);
      if (extent.length == 0) continue;
      uint8_t* slice = object_ + extent.offset;
      TqSlice parts = TqSlice::At(level, layout_.key_dim(), codec.k_bits, layout_.value_dim(), codec.v_bits);
      auto at = [&](const Extent& part) { return part.length > 0 ? slice + part.offset : nullptr; };
      task.slice_stride[level] = static_cast<uint32_t>(Stride(map_, level, layer_, heads_));
      task.scales[level] = at(task.kind == 1 ? parts.v_scales : parts.k_scales);
      task.planes[level] = at(task.kind == 1 ? parts.v_planes : parts.k_planes);
      if (level > 0) continue;
      task.scalars = at(parts.scalars);
      task.mean = task.kind == 1 ? nullptr : at(parts.k_mean);
    }
  }

  // One level, whose parts all step by one stride.
  void PlaceFlat(const LayerCodec& codec, uint32_t dim, TqTask* task) const {
    uint8_t* slice = object_ + map_.slice(0, layer_, 0).offset;
    FlatSlice parts = FlatSlice::At(codec, layout_.key_dim(), layout_.value_dim());
    const FlatSlice::Stream& part = task->kind == 1 ? parts.v : parts.k;
    auto stride = static_cast<uint32_t>(Stride(map_, 0, layer_, heads_));
    std::fill_n(task->slice_stride, kTaskLevels, stride);
    task->levels = 1;
    task->scales[0] = slice + part.scales.offset;
    task->planes[0] = slice + part.codes.offset;
    if (codec.codec != CodecId::kTqProd) return;
    task->scales[1] = slice + part.rests.offset;
    for (int p = 1; p < std::min(task->bits - 1, kTaskLevels); ++p)
      task->planes[p] = slice + part.codes.offset + PlaneBytes(dim, p + 1);
  }

  RowsTask Rows(const MutableLayerView& view, uint32_t tokens) const {
    RowsTask rows;
    rows.key = view.key.data;
    rows.key_token_stride = view.key.token_stride;
    rows.key_head_stride = view.key.head_stride;
    rows.key_dim = layout_.key_dim();
    rows.key_dtype = static_cast<uint8_t>(view.key.dtype);
    if (!layout_.latent()) {
      rows.value = view.value.data;
      rows.value_token_stride = view.value.token_stride;
      rows.value_head_stride = view.value.head_stride;
      rows.value_dim = layout_.value_dim();
      rows.value_dtype = static_cast<uint8_t>(view.value.dtype);
    }
    rows.heads = heads_;
    rows.tokens = tokens;
    rows.stored_dtype = static_cast<uint8_t>(shape_.layout().dtype);
    rows.layer = shape_.part().layer_begin + layer_;
    rows.first_head = shape_.part().head_begin;
    return rows;
  }

  absl::Status AddRaw(const MutableLayerView& view, BlockTasks* out) const {
    DType stored = shape_.layout().dtype;
    if (view.key.dtype != stored || (!layout_.latent() && view.value.dtype != stored)) {
      return absl::UnimplementedError(absl::StrCat("block tasks: layer ", layer_, " is raw ",
                                                   std::string(Name(stored)),
                                                   "; on the device its tensors must be of that type"));
    }
    RowsTask rows = Rows(view, kBlockTokens);
    rows.rows = object_ + map_.slice(0, layer_, 0).offset;
    rows.head_bytes = static_cast<uint32_t>(Stride(map_, 0, layer_, heads_));
    out->rows.push_back(rows);
    return absl::OkStatus();
  }

  const BlockShape& shape_;
  const SliceMap& map_;
  uint32_t layer_;
  int levels_;
  uint8_t* object_;
  const LayerLayout& layout_;
  uint32_t heads_, sinks_;
};

absl::Status AddBlock(const BlockShape& shape, bool first_block, int levels, uint8_t* object,
                      std::span<const MutableLayerView> layers, BlockTasks* out) {
  if (layers.size() != shape.part().layers()) {
    return absl::InvalidArgumentError(
        absl::StrCat("block tasks: ", layers.size(), " layers given, the part has ", shape.part().layers()));
  }
  int most = shape.map(first_block).levels();
  if (levels < 1 || levels > most)
    return absl::InvalidArgumentError(absl::StrCat("block tasks: 1 to ", most, " levels, not ", levels));
  for (uint32_t l = 0; l < layers.size(); ++l) {
    QUIRE_RETURN_IF_ERROR(LayerTasks(shape, first_block, l, levels, object).Add(layers[l], out));
  }
  return absl::OkStatus();
}

float Relative(double error, double energy) { return energy > 0 ? static_cast<float>(error / energy) : 0.0f; }

}  // namespace

absl::StatusOr<BlockShape> BlockShape::Create(const Layout& layout, const Part& part, const CodecSpec& spec) {
  QUIRE_RETURN_IF_ERROR(layout.Validate());
  QUIRE_RETURN_IF_ERROR(part.Validate(layout));
  QUIRE_ASSIGN_OR_RETURN(BlockShape shape, CreateFor(layout, part, LayerCodecs(spec, layout, part)));
  shape.spec_ = spec;
  return shape;
}

absl::StatusOr<BlockShape> BlockShape::CreateFor(const Layout& layout, const Part& part,
                                                 std::vector<LayerCodec> codecs) {
  BlockShape shape;
  QUIRE_RETURN_IF_ERROR(layout.Validate());
  QUIRE_RETURN_IF_ERROR(part.Validate(layout));
  shape.layout_ = layout;
  shape.part_ = part;
  shape.codecs_ = std::move(codecs);
  for (size_t l = 0; l < shape.codecs_.size(); ++l) {
    CodecId id = shape.codecs_[l].codec;
    if (id == CodecId::kQpc) {
      return absl::UnimplementedError(absl::StrCat("block shape: layer ", l, " is ", std::string(Name(id)),
                                                   ", which the device does not code"));
    }
  }
  QUIRE_ASSIGN_OR_RETURN(shape.first_, SliceMap::Create(layout, part, shape.codecs_, kMaxSinkTokens));
  QUIRE_ASSIGN_OR_RETURN(shape.other_, SliceMap::Create(layout, part, shape.codecs_, 0));
  return shape;
}

std::vector<uint32_t> BlockShape::DimsOf(std::initializer_list<CodecId> codecs) const {
  std::set<uint32_t> dims;
  for (uint32_t l = 0; l < part_.layers(); ++l) {
    if (std::ranges::find(codecs, codecs_[l].codec) == codecs.end()) continue;
    for (const StreamLayout& stream : layout_.layers[part_.layer_begin + l].streams) dims.insert(stream.dim);
  }
  return {dims.begin(), dims.end()};
}

TqBatch::Limits BlockShape::TasksPerBlock() const {
  TqBatch::Limits limits;
  for (uint32_t l = 0; l < part_.layers(); ++l) {
    const LayerLayout& layer = layout_.layers[part_.layer_begin + l];
    uint32_t streams = codecs_[l].codec == CodecId::kRaw ? 0 : static_cast<uint32_t>(layer.streams.size());
    limits.tasks += streams;
    limits.rows += 1;
    limits.reports += (streams + 1) * part_.HeadsOf(layer);
  }
  return limits;
}

absl::Status BlockTasks::AddEncode(const BlockShape& shape, bool first_block,
                                   std::span<const LayerView> layers, uint8_t* object) {
  std::vector<MutableLayerView> views;
  auto writable = [](const StreamView& v) {
    return MutableStreamView{const_cast<void*>(v.data), v.dtype, v.token_stride, v.head_stride};
  };
  for (const LayerView& view : layers) views.push_back({writable(view.key), writable(view.value)});
  return AddBlock(shape, first_block, shape.map(first_block).levels(), object, views, this);
}

absl::Status BlockTasks::AddDecode(const BlockShape& shape, bool first_block, int levels,
                                   const uint8_t* object, std::span<const MutableLayerView> layers) {
  return AddBlock(shape, first_block, levels, const_cast<uint8_t*>(object), layers, this);
}

absl::Status BlockTasks::AddDecodeLayer(const BlockShape& shape, bool first_block, int levels,
                                        const uint8_t* object, uint32_t layer, const MutableLayerView& view) {
  int most = shape.map(first_block).levels();
  if (levels < 1 || levels > most)
    return absl::InvalidArgumentError(absl::StrCat("block tasks: 1 to ", most, " levels, not ", levels));
  if (layer >= shape.part().layers())
    return absl::InvalidArgumentError(
        absl::StrCat("block tasks: layer ", layer, ", the part has ", shape.part().layers()));
  return LayerTasks(shape, first_block, layer, levels, const_cast<uint8_t*>(object)).Add(view, this);
}

BlockHeader HeaderOf(const BlockShape& shape, const Digest& fingerprint, const BlockIdentity& identity,
                     const TqBatch& batch, size_t first_task, std::span<const uint64_t> checksums) {
  const SliceMap& map = shape.map(identity.index == 0);
  BlockHeader header;
  header.part = shape.part();
  header.identity = identity;
  header.fingerprint = fingerprint;
  header.header_bytes = static_cast<uint32_t>(map.header_bytes());
  header.rotation = shape.layout().rotation;
  header.rotation_seed = shape.layout().rotation_seed;
  header.codebook = shape.layout().codebook;
  header.sink_tokens = identity.index == 0 ? kMaxSinkTokens : 0;
  header.codecs = shape.codecs();
  header.checksums.assign(checksums.begin(), checksums.end());
  auto errors_of = [&](size_t task, uint32_t heads, CodecId codec) {
    CodingError sum;
    for (uint32_t h = 0; h < heads; ++h) {
      const TqReport& report = batch.report(task, h);
      int exponent = codec == CodecId::kTq ? 0 : report.exponent;
      sum.energy += std::ldexp(double{report.energy}, exponent);
      for (int level = 0; level < kMaxLevels; ++level)
        sum.error[level] += std::ldexp(double{report.error[level]}, exponent);
    }
    return sum;
  };
  for (int level = 0; level < map.levels(); ++level) {
    header.levels.push_back(map.level(level));
    header.relative_error[level].resize(map.layers());
  }
  size_t task = first_task;
  for (uint32_t l = 0; l < map.layers(); ++l) {
    const LayerLayout& layer = shape.layout().layers[shape.part().layer_begin + l];
    uint32_t heads = shape.part().HeadsOf(layer);
    CodecId codec = shape.codecs()[l].codec;
    if (heads == 0 || codec == CodecId::kRaw) continue;
    CodingError k = errors_of(task++, heads, codec), v;
    if (!layer.latent()) v = errors_of(task++, heads, codec);
    for (int level = 0; level < map.levels(); ++level) {
      header.relative_error[level][l] = {Relative(k.error[level], k.energy),
                                         Relative(v.error[level], v.energy)};
    }
  }
  return header;
}

absl::Status SealObject(const BlockShape& shape, const BlockIdentity& identity, const TqBatch& batch,
                        size_t first_task, std::span<uint8_t> object) {
  const SliceMap& map = shape.map(identity.index == 0);
  if (object.size() != map.ObjectBytes(map.levels())) {
    return absl::InvalidArgumentError(
        absl::StrCat("seal: an object of ", map.ObjectBytes(map.levels()), " bytes, not ", object.size()));
  }
  std::vector<uint64_t> checksums(map.checksums());
  auto checksum = [&](const Extent& extent, auto index) {
    if (extent.length > 0) checksums[index()] = Xxh3(Bytes(object).subspan(extent.offset, extent.length));
  };
  for (uint32_t l = 0; l < map.layers(); ++l) {
    checksum(map.sinks(l), [&] { return map.SinkChecksumIndex(l); });
    for (int level = 0; level < map.levels(); ++level) {
      for (uint32_t h = 0; h < map.heads(); ++h)
        checksum(map.slice(level, l, h), [&] { return map.ChecksumIndex(level, l, h); });
    }
  }
  std::vector<uint8_t> bytes =
      SerializeHeader(HeaderOf(shape, shape.layout().Fingerprint(), identity, batch, first_task, checksums));
  std::copy(bytes.begin(), bytes.end(), object.begin());
  return absl::OkStatus();
}

}  // namespace quire::cuda

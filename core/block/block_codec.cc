#include <algorithm>
#include <cmath>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/block/flat_head.h"
#include "core/block/head_bytes.h"

namespace quire {
namespace {

template <typename Convert>
void LoadHalves(const void* data, size_t n, float* row, Convert convert) {
  const auto* bits = static_cast<const uint16_t*>(data);
  for (size_t i = 0; i < n; ++i) row[i] = convert(bits[i]);
}

template <typename Convert>
void StoreHalves(const float* row, size_t n, void* data, Convert convert) {
  auto* bits = static_cast<uint16_t*>(data);
  for (size_t i = 0; i < n; ++i) bits[i] = convert(row[i]);
}

const void* RowOf(const StreamView& view, uint32_t token, uint32_t head) {
  ptrdiff_t element =
      static_cast<ptrdiff_t>(token) * view.token_stride + static_cast<ptrdiff_t>(head) * view.head_stride;
  return static_cast<const uint8_t*>(view.data) + element * static_cast<ptrdiff_t>(SizeOf(view.dtype));
}

HeadRows RowsOf(const StreamView& view, uint32_t head) {
  return {RowOf(view, 0, head), view.dtype, view.token_stride};
}

// Whether no element has all of its exponent's bits: looked up without a branch an element.
template <typename Bits>
bool AllFinite(const void* row, size_t dim, Bits exponent) {
  const auto* bits = static_cast<const Bits*>(row);
  Bits full = 0;
  for (size_t c = 0; c < dim; ++c) full |= static_cast<Bits>((bits[c] & exponent) == exponent);
  return full == 0;
}
bool AllFinite(DType type, const void* row, size_t dim) {
  if (type == DType::kF32) return AllFinite<uint32_t>(row, dim, 0x7F800000u);
  return AllFinite<uint16_t>(row, dim, type == DType::kBf16 ? 0x7F80 : 0x7C00);
}

// What one call of Encode works on.
class Encoder {
 public:
  Encoder(const Layout& layout, const Part& part, const SliceMap& map, const QueryShapes* shapes,
          BlockHeader* header, uint8_t* object)
      : layout_(layout), part_(part), map_(map), shapes_(shapes), header_(*header), object_(object) {}

  // Tables: rotation(dim) and projection(dim).
  template <typename Tables>
  absl::Status Layer(uint32_t l, const LayerView& view, const CodecSpec& spec, const Tables& tables) {
    const LayerLayout& layer = layout_.layers[part_.layer_begin + l];
    const LayerCodec& codec = header_.codecs[l];
    CodingError k_error, v_error;
    if (view.key.data == nullptr || (!layer.latent() && view.value.data == nullptr)) {
      return absl::InvalidArgumentError(
          absl::StrCat("encode: layer ", part_.layer_begin + l, " has a stream without data"));
    }
    QUIRE_RETURN_IF_ERROR(Sinks(l, layer, view));
    for (uint32_t h = 0; h < part_.HeadsOf(layer); ++h) {
      if (codec.codec == CodecId::kRaw) {
        QUIRE_RETURN_IF_ERROR(RawHead(l, h, layer, view, &k_error, &v_error));
        continue;
      }
      if (codec.codec != CodecId::kTq) {
        QUIRE_RETURN_IF_ERROR(FlatHead(l, h, layer, view, tables, &k_error, &v_error));
        continue;
      }
      TqHeadBytes<uint8_t> bytes(object_, map_, l, h, layer, codec, map_.levels());
      HeadScratch& scratch = HeadScratch::OfThread();
      // The rows that come after, where they are of the same size: fetched meanwhile.
      bool last = h + 1 == part_.HeadsOf(layer), alike = layer.key_dim() == layer.value_dim();
      HeadRows value = layer.latent() ? HeadRows{} : RowsOf(view.value, h);
      HeadRows key = last ? HeadRows{} : RowsOf(view.key, h + 1);
      QUIRE_RETURN_IF_ERROR(KeyHead(l, h, view.key, tables.rotation(layer.key_dim()), codec.k_bits,
                                    spec.effort(codec.k_bits), spec.steers() ? ShapeOf(l, h) : nullptr,
                                    alike ? &value : nullptr, bytes, scratch));
      Add(scratch.key.measured, &k_error);
      if (layer.latent()) continue;
      QUIRE_RETURN_IF_ERROR(ValueHead(l, h, view.value, tables.rotation(layer.value_dim()), codec.v_bits,
                                      spec.effort(codec.v_bits), alike && !last ? &key : nullptr, bytes,
                                      scratch));
      Add(scratch.value.measured, &v_error);
    }
    for (int level = 0; level < map_.levels(); ++level) {
      header_.relative_error[level][l] = {Relative(k_error, level), Relative(v_error, level)};
    }
    return absl::OkStatus();
  }

 private:
  static void Add(const CodingError& more, CodingError* sum) {
    sum->energy += more.energy;
    for (int level = 0; level < kMaxLevels; ++level) sum->error[level] += more.error[level];
  }
  const QueryShape* ShapeOf(uint32_t l, uint32_t head) const {
    return shapes_ != nullptr ? &(*shapes_)[l][head] : nullptr;
  }
  static float Relative(const CodingError& error, int level) {
    return error.energy > 0 ? static_cast<float>(error.error[level] / error.energy) : 0.0f;
  }

  absl::Status Refuse(uint32_t l, uint32_t head, uint32_t token, std::string_view stream, const float* row,
                      size_t dim) const {
    std::string what = "a value beyond the codec's range";
    for (size_t c = 0; c < dim; ++c) {
      if (!std::isfinite(row[c]))
        what = absl::StrCat(std::isnan(row[c]) ? "NaN" : "infinity", " in channel ", c);
    }
    return absl::InvalidArgumentError(absl::StrCat("layer ", part_.layer_begin + l, ", head ",
                                                   part_.head_begin + head, ", token ", token, ": ",
                                                   std::string(stream), " has ", what));
  }
  absl::Status Refuse(uint32_t l, uint32_t head, uint32_t token, std::string_view stream,
                      const StreamView& view, size_t dim) const {
    std::vector<float> row(dim);
    LoadRow(view.dtype, RowOf(view, token, head), dim, row.data());
    return Refuse(l, head, token, stream, row.data(), dim);
  }

  // Tokens [0, tokens) of one head at the layout's dtype, to *at, which moves on.
  absl::Status RawRows(uint32_t l, uint32_t head, std::string_view stream, const StreamView& view,
                       uint32_t dim, uint32_t tokens, uint8_t** at, CodingError* error) const {
    float row[kMaxCodecDim], stored[kMaxCodecDim];
    size_t bytes = dim * SizeOf(layout_.dtype);
    for (uint32_t t = 0; t < tokens; ++t, *at += bytes) {
      if (view.dtype == layout_.dtype) {  // nothing is lost
        std::memcpy(*at, RowOf(view, t, head), bytes);
        if (!AllFinite(layout_.dtype, *at, dim)) return Refuse(l, head, t, stream, view, dim);
        continue;
      }
      LoadRow(view.dtype, RowOf(view, t, head), dim, row);
      StoreRow(layout_.dtype, row, dim, *at);
      LoadRow(layout_.dtype, *at, dim, stored);
      for (uint32_t c = 0; c < dim; ++c) {
        if (!std::isfinite(stored[c])) return Refuse(l, head, t, stream, row, dim);
        double miss = static_cast<double>(row[c]) - stored[c];
        error->energy += static_cast<double>(row[c]) * row[c];
        for (double& e : error->error) e += miss * miss;
      }
    }
    return absl::OkStatus();
  }

  absl::Status Sinks(uint32_t l, const LayerLayout& layer, const LayerView& view) const {
    if (map_.sinks(l).length == 0) return absl::OkStatus();
    uint8_t* at = object_ + map_.sinks(l).offset;
    std::memset(at, 0, map_.sinks(l).length);  // the end is padding
    CodingError unused;
    for (uint32_t h = 0; h < part_.HeadsOf(layer); ++h) {
      QUIRE_RETURN_IF_ERROR(RawRows(l, h, "K", view.key, layer.key_dim(), header_.sink_tokens, &at, &unused));
      if (layer.latent()) continue;
      QUIRE_RETURN_IF_ERROR(
          RawRows(l, h, "V", view.value, layer.value_dim(), header_.sink_tokens, &at, &unused));
    }
    return absl::OkStatus();
  }

  absl::Status RawHead(uint32_t l, uint32_t head, const LayerLayout& layer, const LayerView& view,
                       CodingError* k_error, CodingError* v_error) const {
    uint8_t* at = object_ + map_.slice(0, l, head).offset;
    QUIRE_RETURN_IF_ERROR(RawRows(l, head, "K", view.key, layer.key_dim(), kBlockTokens, &at, k_error));
    if (layer.latent()) return absl::OkStatus();
    return RawRows(l, head, "V", view.value, layer.value_dim(), kBlockTokens, &at, v_error);
  }

  template <typename Tables>
  absl::Status FlatHead(uint32_t l, uint32_t head, const LayerLayout& layer, const LayerView& view,
                        const Tables& tables, CodingError* k_error, CodingError* v_error) const {
    const LayerCodec& codec = header_.codecs[l];
    uint8_t* bytes = object_ + map_.slice(0, l, head).offset;
    FlatSlice slice = FlatSlice::At(codec, layer.key_dim(), layer.value_dim());
    auto stream = [&](const char* name, FragmentOrder order, uint32_t dim, int bits, const StreamView& from,
                      const FlatSlice::Stream& part, CodingError* error) {
      const Projection* projection = codec.codec == CodecId::kTqProd ? &tables.projection(dim) : nullptr;
      FlatStream shape{tables.rotation(dim), projection, bits, order};
      int bad = EncodeFlatStream(shape, part, header_.sink_tokens, RowsOf(from, head), bytes, error);
      return bad < 0 ? absl::OkStatus() : Refuse(l, head, static_cast<uint32_t>(bad), name, from, dim);
    };
    QUIRE_RETURN_IF_ERROR(
        stream("K", FragmentOrder::kKey, layer.key_dim(), codec.k_bits, view.key, slice.k, k_error));
    if (layer.latent()) return absl::OkStatus();
    return stream("V", FragmentOrder::kValue, layer.value_dim(), codec.v_bits, view.value, slice.v, v_error);
  }

  absl::Status KeyHead(uint32_t l, uint32_t head, const StreamView& view, const Rotation& rotation, int bits,
                       int effort, const QueryShape* shape, const HeadRows* next,
                       const TqHeadBytes<uint8_t>& out, HeadScratch& scratch) const {
    uint32_t dim = rotation.dim();
    TqKey& key = scratch.key;
    int bad = EncodeKeyHead(rotation, Codebook::Get(dim, bits), effort, header_.sink_tokens,
                            RowsOf(view, head), &key, out.k_planes, next, shape);
    if (bad >= 0) return Refuse(l, head, static_cast<uint32_t>(bad), "K", view, dim);
    std::memcpy(out.k_mean, key.mean.data(), dim);
    std::memset(out.scalars, 0, kScalarBytes);
    std::memcpy(out.scalars, &key.mean_step, 2);
    ScalesToSlots(key.scales.data(), out.k_scales[0]);
    for (int level = 1; level < kMaxLevels; ++level) {
      if (out.k_scales[level] != nullptr) BytesToSlots(key.corrections[level].data(), out.k_scales[level]);
    }
    return absl::OkStatus();
  }

  absl::Status ValueHead(uint32_t l, uint32_t head, const StreamView& view, const Rotation& rotation,
                         int bits, int effort, const HeadRows* next, const TqHeadBytes<uint8_t>& out,
                         HeadScratch& scratch) const {
    uint32_t dim = rotation.dim();
    TqValue& value = scratch.value;
    int bad = EncodeValueHead(rotation, Codebook::Get(dim, bits), effort, header_.sink_tokens,
                              RowsOf(view, head), &value, out.v_planes, next);
    if (bad >= 0) return Refuse(l, head, static_cast<uint32_t>(bad), "V", view, dim);
    std::memcpy(out.scalars + 2, &value.scale_base, 2);
    BytesToSlots(value.scale_codes.data(), out.v_scales[0]);
    if (out.v_scales[3] != nullptr) BytesToSlots(value.corrections.data(), out.v_scales[3]);
    return absl::OkStatus();
  }

  const Layout& layout_;
  const Part& part_;
  const SliceMap& map_;
  const QueryShapes* const shapes_;  // or null
  BlockHeader& header_;
  uint8_t* object_;
};

// One block while it is being encoded: what its layers share.
struct Encoding {
  BlockHeader header;
  SliceMap map;
  std::mutex mu;
  uint32_t failed_layer = 0;
  absl::Status status;

  // The first layer that fails speaks for the block, whichever thread met it.
  void Fail(uint32_t layer, absl::Status why) {
    std::lock_guard lock(mu);
    if (!status.ok() && failed_layer <= layer) return;
    failed_layer = layer;
    status = std::move(why);
  }
};

void ChecksumLayer(uint32_t l, Bytes object, Encoding* encoding) {
  const SliceMap& map = encoding->map;
  auto checksum = [&](const Extent& extent, auto index) {
    if (extent.length > 0)
      encoding->header.checksums[index()] = Xxh3(object.subspan(extent.offset, extent.length));
  };
  checksum(map.sinks(l), [&] { return map.SinkChecksumIndex(l); });
  for (int level = 0; level < map.levels(); ++level) {
    for (uint32_t h = 0; h < map.heads(); ++h)
      checksum(map.slice(level, l, h), [&] { return map.ChecksumIndex(level, l, h); });
  }
}

}  // namespace

void LoadRow(DType t, const void* data, size_t n, float* row) {
  if (n == 0) return;  // memcpy takes no null, not even for nothing
  switch (t) {
    case DType::kF32:
      std::memcpy(row, data, n * sizeof(float));
      return;
    case DType::kBf16:
      return LoadHalves(data, n, row, FromBf16);
    case DType::kF16:
      return LoadHalves(data, n, row, FromF16);
  }
}

void StoreRow(DType t, const float* row, size_t n, void* data) {
  switch (t) {
    case DType::kF32:
      std::memcpy(data, row, n * sizeof(float));
      return;
    case DType::kBf16:
      return StoreHalves(row, n, data, ToBf16);
    case DType::kF16:
      return StoreHalves(row, n, data, ToF16);
  }
}

BlockCodec::BlockCodec(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
BlockCodec::~BlockCodec() = default;

absl::StatusOr<std::shared_ptr<const BlockCodec>> BlockCodec::Create(const Layout& layout, const Part& part) {
  QUIRE_RETURN_IF_ERROR(layout.Validate());
  QUIRE_RETURN_IF_ERROR(part.Validate(layout));
  auto impl = std::make_unique<Impl>();
  impl->layout = layout;
  impl->part = part;
  impl->fingerprint = layout.Fingerprint();
  impl->rotations.resize(kMaxCodecDim / kCodecDimStep + 1);
  for (const LayerLayout& layer : layout.layers) {
    for (const StreamLayout& stream : layer.streams) {
      auto& rotation = impl->rotations[stream.dim / kCodecDimStep];
      if (rotation == nullptr) rotation = std::make_unique<const Rotation>(stream.dim, layout.rotation_seed);
    }
  }
  return std::shared_ptr<const BlockCodec>(new BlockCodec(std::move(impl)));
}

const Layout& BlockCodec::layout() const { return impl_->layout; }
const Part& BlockCodec::part() const { return impl_->part; }
const Digest& BlockCodec::fingerprint() const { return impl_->fingerprint; }

namespace {

// Checks what is asked for and lays the block out.
absl::Status Begin(const CodecSpec& spec, const Layout& layout, const Part& part, const Digest& fingerprint,
                   const BlockCodec::EncodeJob& job, Encoding* encoding) {
  if (job.layers.size() != part.layers()) {
    return absl::InvalidArgumentError(
        absl::StrCat("encode: ", job.layers.size(), " layers given, the part has ", part.layers()));
  }
  if (spec.last_named_layer() >= static_cast<int64_t>(layout.layers.size())) {
    return absl::InvalidArgumentError(absl::StrCat("codec spec ", spec.ToString(), " names layer ",
                                                   spec.last_named_layer(), ", the layout has ",
                                                   layout.layers.size(), " layers"));
  }
  BlockHeader& header = encoding->header;
  header.part = part;
  header.identity = job.identity;
  header.fingerprint = fingerprint;
  header.rotation = layout.rotation;
  header.rotation_seed = layout.rotation_seed;
  header.codebook = layout.codebook;
  header.sink_tokens = job.identity.index == 0 ? kMaxSinkTokens : 0;
  header.codecs = LayerCodecs(spec, layout, part);
  QUIRE_ASSIGN_OR_RETURN(encoding->map, SliceMap::Create(layout, part, header.codecs, header.sink_tokens));
  const SliceMap& map = encoding->map;
  for (int level = 0; level < map.levels(); ++level) {
    header.levels.push_back(map.level(level));
    header.relative_error[level].resize(map.layers());
  }
  header.checksums.resize(map.checksums());
  job.object->resize(map.ObjectBytes(map.levels()));  // every byte is written below, whatever stood here
  return absl::OkStatus();
}

}  // namespace

absl::Status BlockCodec::Encode(const CodecSpec& spec, const BlockIdentity& identity,
                                std::span<const LayerView> layers, std::vector<uint8_t>* object) const {
  return Encode(spec, identity, layers, object, OneByOne);
}

absl::Status BlockCodec::Encode(const CodecSpec& spec, const BlockIdentity& identity,
                                std::span<const LayerView> layers, std::vector<uint8_t>* object,
                                ParallelFor parallel, const QueryShapes* shapes) const {
  EncodeJob job{identity, layers, object, absl::OkStatus()};
  EncodeBlocks(spec, std::span(&job, 1), parallel, shapes);
  return std::move(job.status);
}

void BlockCodec::EncodeBlocks(const CodecSpec& spec, std::span<EncodeJob> jobs, ParallelFor parallel,
                              const QueryShapes* shapes) const {
  std::vector<Encoding> encodings(jobs.size());
  for (size_t i = 0; i < jobs.size(); ++i) {
    encodings[i].status = Begin(spec, impl_->layout, impl_->part, impl_->fingerprint, jobs[i], &encodings[i]);
  }
  uint32_t layers = impl_->part.layers();
  parallel(jobs.size() * layers, [&](size_t task) {
    const EncodeJob& job = jobs[task / layers];
    Encoding& encoding = encodings[task / layers];
    auto l = static_cast<uint32_t>(task % layers);
    if (encoding.map.levels() == 0) return;  // it did not begin
    Encoder encoder(impl_->layout, impl_->part, encoding.map, shapes, &encoding.header, job.object->data());
    absl::Status status = encoder.Layer(l, job.layers[l], spec, *impl_);
    if (!status.ok()) return encoding.Fail(l, std::move(status));
    ChecksumLayer(l, *job.object, &encoding);
  });
  for (size_t i = 0; i < jobs.size(); ++i) {
    jobs[i].status = std::move(encodings[i].status);
    if (!jobs[i].status.ok()) {
      jobs[i].object->clear();
      continue;
    }
    std::vector<uint8_t> bytes = SerializeHeader(encodings[i].header);
    std::copy(bytes.begin(), bytes.end(), jobs[i].object->begin());
  }
}

absl::StatusOr<QueryShape> BlockCodec::ShapeOf(uint32_t layer, std::span<const double> moments) const {
  return QueryShape::Create(impl_->rotation(impl_->layout.layers[impl_->part.layer_begin + layer].key_dim()),
                            moments);
}

void BlockCodec::Rotate(uint32_t dim, const float* x, float* y) const {
  if (y != x) std::memmove(y, x, dim * sizeof(float));
  impl_->rotation(dim).Apply(y);
}

void BlockCodec::RotateBack(uint32_t dim, const float* y, float* x) const {
  if (x != y) std::memmove(x, y, dim * sizeof(float));
  impl_->rotation(dim).ApplyTransposed(x);
}

}  // namespace quire

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/block/flat_head.h"
#include "core/block/head_bytes.h"

namespace quire {
namespace {

absl::Status Mismatch(std::string_view field, const std::string& has, const std::string& wanted) {
  return absl::DataLossError(absl::StrCat("object: ", std::string(field), " is ", has, ", not ", wanted));
}

std::string Text(const Part& p) {
  return absl::StrCat("layers [", p.layer_begin, ", ", p.layer_end, ") heads [", p.head_begin, ", ",
                      p.head_end, ")");
}

void* RowOf(const MutableStreamView& view, uint32_t token, uint32_t head) {
  ptrdiff_t element =
      static_cast<ptrdiff_t>(token) * view.token_stride + static_cast<ptrdiff_t>(head) * view.head_stride;
  return static_cast<uint8_t*>(view.data) + element * static_cast<ptrdiff_t>(SizeOf(view.dtype));
}

MutableHeadRows RowsOf(const MutableStreamView& view, uint32_t head) {
  return {RowOf(view, 0, head), view.dtype, view.token_stride};
}

// More than this at once is not read again from caches, so it need not pass through them.
constexpr size_t kCachedBytes = 32 << 20;

// `tokens` rows that lie one after the other at the layout's dtype.
void StoreRawRows(DType from, const uint8_t* at, uint32_t dim, uint32_t tokens, const MutableStreamView& view,
                  uint32_t head) {
  float row[kMaxCodecDim];
  for (uint32_t t = 0; t < tokens; ++t, at += dim * SizeOf(from)) {
    if (from == view.dtype) {
      std::memcpy(RowOf(view, t, head), at, dim * SizeOf(from));
      continue;
    }
    LoadRow(from, at, dim, row);
    StoreRow(view.dtype, row, dim, RowOf(view, t, head));
  }
}

// K's mean and its scales after `levels` levels.
void ReadKey(const TqHeadBytes<const uint8_t>& in, const Codebook& book, int levels, float* mean,
             float* scales) {
  TqKey& key = HeadScratch::OfThread().key;
  std::memcpy(key.mean.data(), in.k_mean, book.dim());
  std::memcpy(&key.mean_step, in.scalars, 2);
  ScalesFromSlots(in.k_scales[0], key.scales.data());
  for (int level = 1; level < levels; ++level) {
    if (in.k_scales[level] != nullptr) BytesFromSlots(in.k_scales[level], key.corrections[level].data());
  }
  TqKeyScales(book, levels, key, scales);
  TqKeyMean(book.dim(), key, mean);
}

void ReadValue(const TqHeadBytes<const uint8_t>& in, const Codebook& book, int levels, float* scales) {
  TqValue& value = HeadScratch::OfThread().value;
  std::memcpy(&value.scale_base, in.scalars + 2, 2);
  BytesFromSlots(in.v_scales[0], value.scale_codes.data());
  if (in.v_scales[3] != nullptr) BytesFromSlots(in.v_scales[3], value.corrections.data());
  TqValueScales(book, levels, value, scales);
}

absl::Status CheckRange(std::string_view what, int64_t value, int64_t low, int64_t end) {
  if (value >= low && value < end) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(what), " ", value, " is not within [", low, ", ", end, ")"));
}

}  // namespace

absl::StatusOr<BlockReader> BlockReader::OpenAny(std::shared_ptr<const BlockCodec> codec, Bytes object) {
  BlockReader reader;
  QUIRE_ASSIGN_OR_RETURN(reader.header_, ParseHeader(object));
  const BlockHeader& header = reader.header_;
  const Layout& layout = codec->layout();
  if (header.fingerprint != codec->fingerprint())
    return Mismatch("fingerprint", header.fingerprint.Hex(), codec->fingerprint().Hex());
  if (header.part != codec->part()) return Mismatch("part", Text(header.part), Text(codec->part()));
  if (header.rotation != layout.rotation) {
    return Mismatch("rotation", absl::StrCat(static_cast<int>(header.rotation)),
                    absl::StrCat(static_cast<int>(layout.rotation)));
  }
  if (header.rotation_seed != layout.rotation_seed) {
    return Mismatch("rotation seed", absl::StrCat(header.rotation_seed), absl::StrCat(layout.rotation_seed));
  }
  if (header.codebook != layout.codebook) {
    return Mismatch("codebook", absl::StrCat(static_cast<int>(header.codebook)),
                    absl::StrCat(static_cast<int>(layout.codebook)));
  }
  absl::StatusOr<SliceMap> map = SliceMap::Create(layout, header.part, header.codecs, header.sink_tokens);
  if (absl::IsInvalidArgument(map.status()))
    return absl::DataLossError(absl::StrCat("object: ", std::string(map.status().message())));
  QUIRE_RETURN_IF_ERROR(map.status());
  if (map->levels() != static_cast<int>(header.levels.size()) ||
      map->checksums() != header.checksums.size() || map->header_bytes() != header.header_bytes) {
    return absl::DataLossError(absl::StrCat("object: ", header.levels.size(), " levels, ",
                                            header.checksums.size(), " checksums and ", header.header_bytes,
                                            " header bytes; its codecs make ", map->levels(), ", ",
                                            map->checksums(), " and ", map->header_bytes()));
  }
  for (int level = 0; level < map->levels(); ++level) {
    if (map->level(level).length != header.levels[level].length) {
      return Mismatch(absl::StrCat("length of level ", level), absl::StrCat(header.levels[level].length),
                      absl::StrCat(map->level(level).length));
    }
  }
  QUIRE_ASSIGN_OR_RETURN(reader.levels_, map->LevelsOf(object.size()));
  reader.slices_ = *std::move(map);
  reader.codec_ = std::move(codec);
  reader.object_ = object;
  return reader;
}

absl::StatusOr<BlockReader> BlockReader::Open(std::shared_ptr<const BlockCodec> codec,
                                              const BlockIdentity& expected, Bytes object) {
  QUIRE_ASSIGN_OR_RETURN(BlockReader reader, OpenAny(std::move(codec), object));
  const BlockIdentity& identity = reader.header_.identity;
  if (identity.key != expected.key) return Mismatch("key", identity.key.Hex(), expected.key.Hex());
  if (identity.parent != expected.parent)
    return Mismatch("parent", identity.parent.Hex(), expected.parent.Hex());
  return reader;
}

absl::Status BlockReader::Verify() const {
  for (uint32_t l = 0; l < slices_.layers(); ++l) QUIRE_RETURN_IF_ERROR(VerifyLayer(l, levels_));
  return absl::OkStatus();
}

absl::Status BlockReader::VerifyLayer(uint32_t layer, int levels) const {
  QUIRE_RETURN_IF_ERROR(CheckRange("levels", levels, 1, levels_ + 1));
  for (int level = 0; level < levels; ++level)
    QUIRE_RETURN_IF_ERROR(VerifySlices(level, layer, 0, slices_.heads()));
  return absl::OkStatus();
}

absl::Status BlockReader::VerifySlices(int level, uint32_t layer, uint32_t head_begin,
                                       uint32_t head_end) const {
  QUIRE_RETURN_IF_ERROR(CheckRange("layer", layer, 0, slices_.layers()));
  QUIRE_RETURN_IF_ERROR(CheckRange("level", level, 0, levels_));
  QUIRE_RETURN_IF_ERROR(CheckRange("end of heads", head_end, head_begin, slices_.heads() + 1));
  auto wrong = [&](const Extent& extent, auto index) {
    return extent.length > 0 &&
           Xxh3(object_.subspan(extent.offset, extent.length)) != header_.checksums[index()];
  };
  if (level == 0 && wrong(slices_.sinks(layer), [&] { return slices_.SinkChecksumIndex(layer); })) {
    return absl::DataLossError(absl::StrCat("object ", header_.identity.key.Hex(),
                                            ": checksum mismatch in the sinks of layer ", layer));
  }
  for (uint32_t h = head_begin; h < head_end; ++h) {
    if (wrong(slices_.slice(level, layer, h), [&] { return slices_.ChecksumIndex(level, layer, h); })) {
      return absl::DataLossError(absl::StrCat("object ", header_.identity.key.Hex(),
                                              ": checksum mismatch in level ", level, ", layer ", layer,
                                              ", head ", h));
    }
  }
  return absl::OkStatus();
}

absl::Status BlockReader::DecodeLayer(uint32_t layer, int levels, const MutableLayerView& out) const {
  return DecodeLayerTo(Destination::kCaches, layer, levels, out);
}

absl::Status BlockReader::DecodeLayerTo(Destination destination, uint32_t layer, int levels,
                                        const MutableLayerView& out) const {
  QUIRE_RETURN_IF_ERROR(CheckRange("layer", layer, 0, slices_.layers()));
  QUIRE_RETURN_IF_ERROR(CheckRange("levels", levels, 1, levels_ + 1));
  const LayerLayout& shape = codec_->impl_->layer(layer);
  const LayerCodec& codec = header_.codecs[layer];
  uint32_t k_dim = shape.key_dim(), v_dim = shape.value_dim(), sinks = header_.sink_tokens;
  if (out.key.data == nullptr || (v_dim > 0 && out.value.data == nullptr)) {
    return absl::InvalidArgumentError(absl::StrCat("decode: layer ", layer, " has a stream without room"));
  }
  DType stored = codec_->layout().dtype;
  const uint8_t* sink_bytes = object_.data() + slices_.sinks(layer).offset;
  for (uint32_t h = 0; h < header_.part.HeadsOf(shape); ++h) {
    if (codec.codec == CodecId::kRaw) {
      const uint8_t* at = object_.data() + slices_.slice(0, layer, h).offset;
      StoreRawRows(stored, at, k_dim, kBlockTokens, out.key, h);
      if (v_dim > 0)
        StoreRawRows(stored, at + size_t{kBlockTokens} * k_dim * SizeOf(stored), v_dim, kBlockTokens,
                     out.value, h);
      continue;
    }
    if (codec.codec != CodecId::kTq) {
      DecodeFlatHead(layer, h, out);
      StoreRawRows(stored, sink_bytes, k_dim, sinks, out.key, h);
      sink_bytes += size_t{sinks} * k_dim * SizeOf(stored);
      if (v_dim > 0) StoreRawRows(stored, sink_bytes, v_dim, sinks, out.value, h);
      sink_bytes += size_t{sinks} * v_dim * SizeOf(stored);
      continue;
    }
    TqHeadBytes<const uint8_t> in(object_.data(), slices_, layer, h, shape, codec, levels);
    float mean[kMaxCodecDim], scales[kBlockTokens];
    // The rows that come after, where they are of the same size: fetched meanwhile.
    bool last = h + 1 == header_.part.HeadsOf(shape);
    MutableHeadRows value_rows = v_dim > 0 ? RowsOf(out.value, h) : MutableHeadRows{};
    MutableHeadRows next_rows = last ? MutableHeadRows{} : RowsOf(out.key, h + 1);
    const Codebook& k_book = Codebook::Get(k_dim, codec.k_bits);
    ReadKey(in, k_book, levels, mean, scales);
    DecodeHead(&codec_->impl_->rotation(k_dim), k_book, KeptBits(codec.k_bits, levels - 1),
               FragmentOrder::kKey, in.k_planes, scales, mean, sinks, RowsOf(out.key, h),
               k_dim == v_dim ? &value_rows : nullptr, destination);
    StoreRawRows(stored, sink_bytes, k_dim, sinks, out.key, h);
    sink_bytes += size_t{sinks} * k_dim * SizeOf(stored);
    if (v_dim == 0) continue;
    const Codebook& v_book = Codebook::Get(v_dim, codec.v_bits);
    ReadValue(in, v_book, levels, scales);
    DecodeHead(&codec_->impl_->rotation(v_dim), v_book, KeptBits(codec.v_bits, levels - 1),
               FragmentOrder::kValue, in.v_planes, scales, nullptr, sinks, value_rows,
               k_dim == v_dim && !last ? &next_rows : nullptr, destination);
    StoreRawRows(stored, sink_bytes, v_dim, sinks, out.value, h);
    sink_bytes += size_t{sinks} * v_dim * SizeOf(stored);
  }
  return absl::OkStatus();
}

// All but the sinks.
void BlockReader::DecodeFlatHead(uint32_t layer, uint32_t head, const MutableLayerView& out) const {
  const BlockCodec::Impl& tables = *codec_->impl_;
  const LayerLayout& shape = tables.layer(layer);
  const LayerCodec& codec = header_.codecs[layer];
  const uint8_t* bytes = object_.data() + slices_.slice(0, layer, head).offset;
  FlatSlice slice = FlatSlice::At(codec, shape.key_dim(), shape.value_dim());
  auto stream = [&](FragmentOrder order, uint32_t dim, int bits, const MutableStreamView& to,
                    const FlatSlice::Stream& part) {
    const Projection* projection = codec.codec == CodecId::kTqProd ? &tables.projection(dim) : nullptr;
    DecodeFlatStream({tables.rotation(dim), projection, bits, order}, part, header_.sink_tokens, bytes,
                     RowsOf(to, head));
  };
  stream(FragmentOrder::kKey, shape.key_dim(), codec.k_bits, out.key, slice.k);
  if (shape.latent()) return;
  stream(FragmentOrder::kValue, shape.value_dim(), codec.v_bits, out.value, slice.v);
}

size_t BlockReader::DecodedBytes(uint32_t layer, const MutableLayerView& out) const {
  if (layer >= slices_.layers()) return 0;
  const LayerLayout& shape = codec_->impl_->layer(layer);
  size_t row = shape.key_dim() * SizeOf(out.key.dtype) + shape.value_dim() * SizeOf(out.value.dtype);
  return kBlockTokens * header_.part.HeadsOf(shape) * row;
}

void BlockReader::DecodeLayers(std::span<DecodeJob> jobs, ParallelFor parallel) {
  size_t bytes = 0;
  for (const DecodeJob& job : jobs) bytes += job.reader->DecodedBytes(job.layer, job.out);
  const Destination destination = bytes > kCachedBytes ? Destination::kMemory : Destination::kCaches;
  parallel(jobs.size(), [&](size_t i) {
    DecodeJob& job = jobs[i];
    job.status = job.reader->DecodeLayerTo(destination, job.layer, job.levels, job.out);
  });
}

absl::Status BlockReader::DecodeRotated(uint32_t layer, uint32_t head, int levels,
                                        const RotatedHead& out) const {
  QUIRE_RETURN_IF_ERROR(CheckRange("layer", layer, 0, slices_.layers()));
  const LayerLayout& shape = codec_->impl_->layer(layer);
  const LayerCodec& codec = header_.codecs[layer];
  QUIRE_RETURN_IF_ERROR(CheckRange("head", head, 0, header_.part.HeadsOf(shape)));
  QUIRE_RETURN_IF_ERROR(CheckRange("levels", levels, 1, levels_ + 1));
  uint32_t k_dim = shape.key_dim(), v_dim = shape.value_dim();
  if (codec.codec != CodecId::kTq) {
    return absl::FailedPreconditionError(absl::StrCat(
        "layer ", layer, " is coded as ", std::string(Name(codec.codec)), ", which has no rotated form"));
  }
  if (out.k.size() != size_t{kBlockTokens} * k_dim || out.k_mean.size() != k_dim ||
      out.v.size() != size_t{kBlockTokens} * v_dim) {
    return absl::InvalidArgumentError(absl::StrCat(
        "rotated head wants k of ", kBlockTokens * k_dim, ", k_mean of ", k_dim, " and v of ",
        kBlockTokens * v_dim, " floats, not ", out.k.size(), ", ", out.k_mean.size(), " and ", out.v.size()));
  }
  TqHeadBytes<const uint8_t> in(object_.data(), slices_, layer, head, shape, codec, levels);
  float scales[kBlockTokens];
  const Codebook& k_book = Codebook::Get(k_dim, codec.k_bits);
  ReadKey(in, k_book, levels, out.k_mean.data(), scales);
  DecodeHead(nullptr, k_book, KeptBits(codec.k_bits, levels - 1), FragmentOrder::kKey, in.k_planes, scales,
             nullptr, 0, {out.k.data(), DType::kF32, k_dim});
  if (v_dim == 0) return absl::OkStatus();
  const Codebook& v_book = Codebook::Get(v_dim, codec.v_bits);
  ReadValue(in, v_book, levels, scales);
  DecodeHead(nullptr, v_book, KeptBits(codec.v_bits, levels - 1), FragmentOrder::kValue, in.v_planes, scales,
             nullptr, 0, {out.v.data(), DType::kF32, v_dim});
  return absl::OkStatus();
}

absl::Status BlockReader::DecodeSinks(uint32_t layer, uint32_t head, std::span<float> k,
                                      std::span<float> v) const {
  QUIRE_RETURN_IF_ERROR(CheckRange("layer", layer, 0, slices_.layers()));
  const LayerLayout& shape = codec_->impl_->layer(layer);
  QUIRE_RETURN_IF_ERROR(CheckRange("head", head, 0, header_.part.HeadsOf(shape)));
  size_t k_elements = size_t{header_.sink_tokens} * shape.key_dim(),
         v_elements = size_t{header_.sink_tokens} * shape.value_dim();
  if (k.size() != k_elements || v.size() != v_elements) {
    return absl::InvalidArgumentError(absl::StrCat("sinks want k of ", k_elements, " and v of ", v_elements,
                                                   " floats, not ", k.size(), " and ", v.size()));
  }
  DType stored = codec_->layout().dtype;
  bool raw = header_.codecs[layer].codec == CodecId::kRaw;  // its slice holds all tokens, sinks first
  const uint8_t* at = object_.data() +
                      (raw ? slices_.slice(0, layer, head).offset
                           : slices_.sinks(layer).offset + head * (k_elements + v_elements) * SizeOf(stored));
  LoadRow(stored, at, k_elements, k.data());
  LoadRow(stored, at + (raw ? size_t{kBlockTokens} * shape.key_dim() : k_elements) * SizeOf(stored),
          v_elements, v.data());
  return absl::OkStatus();
}

}  // namespace quire

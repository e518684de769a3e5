#include "services/store/server/codec_service.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/api/limits.h"
#include "services/store/engine/layouts.h"
#include "services/store/engine/levels.h"
#include "services/store/engine/raw_form.h"
#include "services/store/wire/convert.h"

namespace quire::store {
namespace {

// The layout and part of one call.
struct Subject {
  std::shared_ptr<const KnownLayout> layout;
  Part part;
};
absl::StatusOr<Subject> SubjectOf(const v1::Layout& layout_message, const v1::Part& part_message) {
  QUIRE_ASSIGN_OR_RETURN(Layout layout, FromProto(layout_message));
  Subject subject;
  subject.layout = std::make_shared<const KnownLayout>(0, std::move(layout));
  QUIRE_ASSIGN_OR_RETURN(subject.part, subject.layout->Resolve(FromProto(part_message)));
  return subject;
}

absl::StatusOr<CodecSpec> SpecFor(const std::string& text, const Layout& layout) {
  QUIRE_ASSIGN_OR_RETURN(CodecSpec spec, CodecSpec::Parse(text));
  if (spec.last_named_layer() >= static_cast<int64_t>(layout.layers.size())) {
    return absl::InvalidArgumentError(absl::StrCat("codec ", text, " names layer ", spec.last_named_layer(),
                                                   "; the layout has ", layout.layers.size()));
  }
  return spec;
}

// Puts the chunks of one block after the other together; at most `limit` bytes a block.
class BlockInput {
 public:
  explicit BlockInput(uint64_t limit) : limit_(limit) {}

  // True once the block is whole: its bytes are then block(), until Next.
  absl::StatusOr<bool> Take(const v1::CodecData& data) {
    if (data.block() != index_) {
      return absl::InvalidArgumentError(
          absl::StrCat("data of block ", data.block(), " where block ", index_, " is next"));
    }
    if (data.data().size() > kChunkBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("chunk of ", data.data().size(), " bytes: at most ", kChunkBytes));
    }
    if (data.data().size() > limit_ - bytes_.size()) {
      return absl::InvalidArgumentError(absl::StrCat("block ", index_, " has more than ", limit_, " bytes"));
    }
    Bytes chunk = AsBytes(data.data());
    bytes_.insert(bytes_.end(), chunk.begin(), chunk.end());
    return data.last();
  }
  void Next() {
    ++index_;
    bytes_.clear();
  }
  absl::Status CheckEnd() const {
    if (bytes_.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("the stream ended within block ", index_, ", after ", bytes_.size(), " bytes"));
  }
  uint32_t index() const { return index_; }
  const std::vector<uint8_t>& block() const { return bytes_; }

 private:
  const uint64_t limit_;
  uint32_t index_ = 0;
  std::vector<uint8_t> bytes_;
};

template <typename Messages>
absl::Status SendBlock(uint32_t block, Bytes bytes, Messages& messages, StreamWatch::Stream& stream,
                       v1::CodecData& message) {
  do {
    Bytes chunk = bytes.first(std::min(bytes.size(), kChunkBytes));
    bytes = bytes.subspan(chunk.size());
    message.set_block(block);
    message.mutable_data()->assign(reinterpret_cast<const char*>(chunk.data()), chunk.size());
    message.set_last(bytes.empty());
    if (!messages.Write(message)) return stream.Broken();
    stream.Progress();
  } while (!bytes.empty());
  return absl::OkStatus();
}

absl::Status InBlock(uint32_t block, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat("block ", block, ": ", std::string(status.message())));
}

// What the device does not code, or has no room for now.
bool ForTheHost(const absl::Status& status) {
  return absl::IsUnimplemented(status) || absl::IsResourceExhausted(status);
}

absl::Status CheckBlockBytes(uint64_t bytes, uint64_t limit) {
  if (bytes <= limit) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("a block of this layout and part has ", bytes,
                                                   " raw bytes; at most ", limit,
                                                   " are taken: ask for a part"));
}

}  // namespace

grpc::Status CodecService::Encode(grpc::ServerContext* context, EncodeStream* messages) {
  RpcMetrics::Call call = metrics_.Start("Encode");
  if (absl::Status status = access_.CheckKnown(*context); !status.ok()) return call.Done(status);
  StreamWatch::Stream stream(watch_, *context);
  return call.Done(DoEncode(stream, *messages));
}

absl::Status CodecService::DoEncode(StreamWatch::Stream& stream, EncodeStream& messages) {
  v1::EncodeRequest request;
  if (!messages.Read(&request) || !request.has_start())
    return absl::InvalidArgumentError("an Encode stream begins with EncodeStart");
  const v1::EncodeStart& start = request.start();
  QUIRE_ASSIGN_OR_RETURN(Subject subject, SubjectOf(start.layout(), start.part()));
  const Layout& layout = subject.layout->layout;
  QUIRE_ASSIGN_OR_RETURN(CodecSpec spec, SpecFor(start.codec(), layout));
  QUIRE_ASSIGN_OR_RETURN(DType dtype, FromProto(start.dtype()));
  uint64_t raw_bytes = RawFormBytes(layout, subject.part, dtype);
  QUIRE_RETURN_IF_ERROR(CheckBlockBytes(raw_bytes, max_block_bytes_));
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<const BlockCodec> codec, subject.layout->Codec(subject.part));
  uint32_t first_block = start.first_block();

  BlockInput input(raw_bytes);
  std::vector<uint8_t> object;
  v1::CodecData out;
  while (messages.Read(&request)) {
    stream.Progress();
    if (!request.has_data()) return absl::InvalidArgumentError("after EncodeStart only data may come");
    QUIRE_ASSIGN_OR_RETURN(bool whole, input.Take(request.data()));
    if (!whole) continue;
    uint32_t block = input.index();
    if (input.block().size() != raw_bytes) {
      return absl::InvalidArgumentError(absl::StrCat("block ", block, " has ", input.block().size(),
                                                     " bytes; the raw form has ", raw_bytes));
    }
    BlockIdentity identity;  // in no chain: key and parent are zero
    identity.index = first_block + block;
    auto encode = [&]() -> absl::Status {
      if (store_.device() != nullptr) {
        absl::Status done = store_.EncodeOnDevice(*subject.layout, subject.part, spec, dtype, identity,
                                                  input.block(), &object);
        if (!ForTheHost(done)) return done;
      }
      return codec->Encode(spec, identity, RawFormViews(layout, subject.part, dtype, input.block().data()),
                           &object);
    };
    QUIRE_RETURN_IF_ERROR(InBlock(block, encode()));
    input.Next();
    QUIRE_RETURN_IF_ERROR(SendBlock(block, object, messages, stream, out));
  }
  return input.CheckEnd();
}

grpc::Status CodecService::Decode(grpc::ServerContext* context, DecodeStream* messages) {
  RpcMetrics::Call call = metrics_.Start("Decode");
  if (absl::Status status = access_.CheckKnown(*context); !status.ok()) return call.Done(status);
  StreamWatch::Stream stream(watch_, *context);
  return call.Done(DoDecode(stream, *messages));
}

absl::Status CodecService::DoDecode(StreamWatch::Stream& stream, DecodeStream& messages) {
  v1::DecodeRequest request;
  if (!messages.Read(&request) || !request.has_start())
    return absl::InvalidArgumentError("a Decode stream begins with DecodeStart");
  const v1::DecodeStart start = request.start();
  QUIRE_ASSIGN_OR_RETURN(Subject subject, SubjectOf(start.layout(), start.part()));
  const Layout& layout = subject.layout->layout;
  QUIRE_ASSIGN_OR_RETURN(DType dtype, FromProto(start.dtype()));
  uint64_t raw_bytes = RawFormBytes(layout, subject.part, dtype);
  QUIRE_RETURN_IF_ERROR(CheckBlockBytes(raw_bytes, max_block_bytes_));
  QUIRE_ASSIGN_OR_RETURN(ObjectSizes sizes, PossibleObjectSizes(layout, subject.part));
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<const BlockCodec> codec, subject.layout->Codec(subject.part));

  BlockInput input(sizes.most);
  std::vector<uint8_t> raw(raw_bytes);
  v1::CodecData out;
  while (messages.Read(&request)) {
    stream.Progress();
    if (!request.has_data()) return absl::InvalidArgumentError("after DecodeStart only data may come");
    QUIRE_ASSIGN_OR_RETURN(bool whole, input.Take(request.data()));
    if (!whole) continue;
    uint32_t block = input.index();
    auto decode = [&]() -> absl::Status {
      QUIRE_ASSIGN_OR_RETURN(BlockReader reader, BlockReader::OpenAny(codec, input.block()));
      QUIRE_RETURN_IF_ERROR(reader.Verify());
      int levels = LevelsForBits(reader.header(), reader.levels(), start.max_bits());
      if (store_.device() != nullptr) {
        Bytes kept = Bytes(input.block()).first(reader.slices().ObjectBytes(levels));
        absl::Status done =
            store_.DecodeOnDevice(*subject.layout, subject.part, reader.header(), levels, dtype, kept, raw);
        if (!ForTheHost(done)) return done;
      }
      MutableBytes to(raw);
      for (uint32_t layer = 0; layer < subject.part.layers(); ++layer) {
        uint64_t bytes = RawLayerBytes(layout, subject.part, layer, dtype);
        QUIRE_RETURN_IF_ERROR(
            DecodeRawLayer(layout, reader, levels, subject.part, layer, dtype, to.first(bytes)));
        to = to.subspan(bytes);
      }
      return absl::OkStatus();
    };
    QUIRE_RETURN_IF_ERROR(InBlock(block, decode()));
    input.Next();
    QUIRE_RETURN_IF_ERROR(SendBlock(block, raw, messages, stream, out));
  }
  return input.CheckEnd();
}

namespace {

// Bytes and elements of K and of V, of one level, over all layers and heads of a part. Bytes that both share
// (padding, the scalars' row) are split evenly.
struct KvBytes {
  double k = 0, v = 0;
};
KvBytes LevelBytes(const Layout& layout, const Part& part, const std::vector<LayerCodec>& codecs, int level) {
  KvBytes bytes;
  for (uint32_t l = 0; l < part.layers(); ++l) {
    const LayerLayout& layer = layout.layers[part.layer_begin + l];
    double heads = part.HeadsOf(layer);
    if (codecs[l].codec == CodecId::kRaw) {
      double element = level == 0 ? static_cast<double>(kBlockTokens * SizeOf(layout.dtype)) : 0;
      bytes.k += heads * element * layer.key_dim();
      bytes.v += heads * element * layer.value_dim();
      continue;
    }
    if (codecs[l].codec != CodecId::kTq) {
      if (level > 0) continue;
      FlatSlice slice = FlatSlice::At(codecs[l], layer.key_dim(), layer.value_dim());
      double k = static_cast<double>(slice.k.codes.end());  // K's parts come first
      bytes.k += heads * k;
      bytes.v += heads * (static_cast<double>(slice.bytes) - k);
      continue;
    }
    TqSlice slice =
        TqSlice::At(level, layer.key_dim(), codecs[l].k_bits, layer.value_dim(), codecs[l].v_bits);
    double v = static_cast<double>(slice.v_scales.length + slice.v_planes.length);
    if (!layer.latent()) v += static_cast<double>(slice.scalars.length) / 2;
    bytes.v += heads * v;
    bytes.k += heads * (static_cast<double>(slice.bytes) - v);
  }
  return bytes;
}

}  // namespace

grpc::Status CodecService::Describe(grpc::ServerContext* context, const v1::DescribeRequest* request,
                                    v1::DescribeResponse* response) {
  auto describe = [&]() -> absl::Status {
    QUIRE_RETURN_IF_ERROR(access_.CheckKnown(*context));
    QUIRE_ASSIGN_OR_RETURN(Subject subject, SubjectOf(request->layout(), request->part()));
    const Layout& layout = subject.layout->layout;
    QUIRE_ASSIGN_OR_RETURN(CodecSpec spec, SpecFor(request->codec(), layout));
    std::vector<LayerCodec> codecs = LayerCodecs(spec, layout, subject.part);
    QUIRE_ASSIGN_OR_RETURN(SliceMap slices,
                           SliceMap::Create(layout, subject.part, codecs, /*sink_tokens=*/0));
    response->set_codec(spec.ToString());
    response->set_fingerprint(std::string(subject.layout->fingerprint.AsString()));
    response->set_raw_bytes(RawFormBytes(layout, subject.part, layout.dtype));
    response->set_header_bytes(slices.header_bytes());
    double k_elements = 0, v_elements = 0;
    for (uint32_t l = subject.part.layer_begin; l < subject.part.layer_end; ++l) {
      double vectors = double{kBlockTokens} * subject.part.HeadsOf(layout.layers[l]);
      k_elements += vectors * layout.layers[l].key_dim();
      v_elements += vectors * layout.layers[l].value_dim();
    }
    KvBytes total;
    for (int level = 0; level < slices.levels(); ++level) {
      KvBytes bytes = LevelBytes(layout, subject.part, codecs, level);
      total.k += bytes.k;
      total.v += bytes.v;
      response->add_object_bytes(slices.ObjectBytes(level + 1));
      response->add_k_bits(8 * total.k / k_elements);
      response->add_v_bits(v_elements > 0 ? 8 * total.v / v_elements : 0);
    }
    return absl::OkStatus();
  };
  return metrics_.Start("Describe").Done(describe());
}

}  // namespace quire::store

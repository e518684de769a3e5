#include "core/block/layout.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/bytes.h"
#include "core/base/status_macros.h"
#include "core/codec/codebook.h"

namespace quire {
namespace {

constexpr uint32_t kLayoutMagic = 0x4C564B51;  // "QKVL"
constexpr uint16_t kLayoutVersion = 1;

std::string_view Name(StreamKind kind) {
  return kind == StreamKind::kKey ? "key" : kind == StreamKind::kValue ? "value" : "latent";
}

// Out of line: gcc 12 warns falsely (-Wstringop-overflow) where it sees that a vector being appended to
// starts empty.
[[gnu::noinline]] std::vector<uint8_t> EmptyWithRoomFor(size_t bytes) {
  std::vector<uint8_t> out;
  out.reserve(bytes);
  return out;
}

absl::Status ValidateLayer(const LayerLayout& layer, size_t index) {
  auto bad = [&](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat("layout: layers[", index, "]: ", what));
  };
  const auto& streams = layer.streams;
  bool pair =
      streams.size() == 2 && streams[0].kind == StreamKind::kKey && streams[1].kind == StreamKind::kValue;
  bool latent = streams.size() == 1 && streams[0].kind == StreamKind::kLatent;
  if (!pair && !latent) return bad("streams must be {key, value} or {latent}");
  for (const StreamLayout& s : streams) {
    std::string name(Name(s.kind));
    if (s.heads < 1 || s.heads > kMaxHeads)
      return bad(absl::StrCat(name, " heads must be 1 to ", kMaxHeads, ", not ", s.heads));
    if (!IsCodecDim(s.dim)) {
      return bad(absl::StrCat(name, " dim must be a multiple of ", kCodecDimStep, " from ", kMinCodecDim,
                              " to ", kMaxCodecDim, ", not ", s.dim));
    }
  }
  if (pair && streams[0].heads != streams[1].heads) {
    return bad(absl::StrCat("key has ", streams[0].heads, " heads, value ", streams[1].heads,
                            ": they must be equal"));
  }
  if (pair && streams[0].sliding_window != streams[1].sliding_window) {
    return bad(absl::StrCat("key has sliding_window ", streams[0].sliding_window, ", value ",
                            streams[1].sliding_window, ": they must be equal"));
  }
  return absl::OkStatus();
}

}  // namespace

Layout Layout::Uniform(const Digest& model_digest, uint32_t layers, uint32_t kv_heads, uint32_t head_dim) {
  Layout layout;
  layout.model_digest = model_digest;
  LayerLayout layer;
  layer.streams = {{StreamKind::kKey, kv_heads, head_dim, 0}, {StreamKind::kValue, kv_heads, head_dim, 0}};
  layout.layers.assign(layers, layer);
  return layout;
}

absl::Status Layout::Validate() const {
  auto bad = [](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat("layout: ", what));
  };
  if (dtype > DType::kF32) return bad(absl::StrCat("dtype ", static_cast<int>(dtype), " is unknown"));
  if (rope_state.size() > kMaxRopeStateBytes) {
    return bad(
        absl::StrCat("rope_state has at most ", kMaxRopeStateBytes, " bytes, not ", rope_state.size()));
  }
  if (rotation != RotationId::kHadamard2)
    return bad(absl::StrCat("rotation ", static_cast<int>(rotation), " is unknown"));
  if (codebook != CodebookId::kLloydMaxSphere)
    return bad(absl::StrCat("codebook ", static_cast<int>(codebook), " is unknown"));
  if (block_tokens != kBlockTokens)
    return bad(absl::StrCat("block_tokens must be ", kBlockTokens, ", not ", block_tokens));
  if (layers.empty() || layers.size() > kMaxLayers) {
    return bad(absl::StrCat("layers must be 1 to ", kMaxLayers, ", not ", layers.size()));
  }
  size_t heads = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    QUIRE_RETURN_IF_ERROR(ValidateLayer(layers[i], i));
    heads += layers[i].heads();
  }
  if (heads > kMaxLayerHeads)
    return bad(absl::StrCat("heads of all layers together are at most ", kMaxLayerHeads, ", not ", heads));
  return absl::OkStatus();
}

std::vector<uint8_t> Layout::Serialize() const {
  std::vector<uint8_t> bytes = EmptyWithRoomFor(68 + rope_state.size() + layers.size() * 36);
  ByteWriter out(&bytes);
  out.Put(kLayoutMagic);
  out.Put(kLayoutVersion);
  out.Put(static_cast<uint8_t>(dtype));
  out.Put(uint8_t{0});
  out.Put(static_cast<uint16_t>(rotation));
  out.Put(static_cast<uint16_t>(codebook));
  out.Put(block_tokens);
  out.Put(rotation_seed);
  out.Put(model_digest.bytes);
  out.PutString(rope_state);
  out.Put(static_cast<uint32_t>(layers.size()));
  for (const LayerLayout& layer : layers) {
    out.Put(static_cast<uint32_t>(layer.streams.size()));
    for (const StreamLayout& s : layer.streams) {
      out.Put(static_cast<uint32_t>(s.kind));
      out.Put(s.heads);
      out.Put(s.dim);
      out.Put(s.sliding_window);
    }
  }
  return bytes;
}

absl::StatusOr<Layout> Layout::Parse(Bytes bytes) {
  auto bad = [](const std::string& what) {
    return absl::DataLossError(absl::StrCat("layout bytes: ", what));
  };
  ByteReader in(bytes);
  Layout layout;
  if (in.Get<uint32_t>() != kLayoutMagic) return bad("no magic QKVL");
  if (uint16_t version = in.Get<uint16_t>(); in.ok() && version != kLayoutVersion) {
    return absl::UnimplementedError(
        absl::StrCat("layout bytes: version ", version, " is unknown, ", kLayoutVersion, " is read"));
  }
  layout.dtype = static_cast<DType>(in.Get<uint8_t>());
  if (in.Get<uint8_t>() != 0) return bad("byte 7 is not zero");
  layout.rotation = static_cast<RotationId>(in.Get<uint16_t>());
  layout.codebook = static_cast<CodebookId>(in.Get<uint16_t>());
  layout.block_tokens = in.Get<uint32_t>();
  layout.rotation_seed = in.Get<uint64_t>();
  layout.model_digest = Digest::FromBytes(AsString(in.GetBytes(32))).value_or(Digest{});
  uint32_t rope_bytes = in.Get<uint32_t>();
  if (rope_bytes > kMaxRopeStateBytes) return bad(absl::StrCat("rope_state of ", rope_bytes, " bytes"));
  layout.rope_state = std::string(AsString(in.GetBytes(rope_bytes)));
  uint32_t count = in.Get<uint32_t>();
  if (count > kMaxLayers) return bad(absl::StrCat(count, " layers, ", kMaxLayers, " are allowed"));
  for (uint32_t l = 0; l < count && in.ok(); ++l) {
    uint32_t streams = in.Get<uint32_t>();
    if (streams > 2) return bad(absl::StrCat("layers[", l, "] has ", streams, " streams"));
    LayerLayout& layer = layout.layers.emplace_back();
    for (uint32_t s = 0; s < streams; ++s) {
      uint32_t kind = in.Get<uint32_t>();
      if (kind > 2) return bad(absl::StrCat("layers[", l, "] has a stream of kind ", kind));
      StreamLayout& stream = layer.streams.emplace_back();
      stream.kind = static_cast<StreamKind>(kind);
      stream.heads = in.Get<uint32_t>();
      stream.dim = in.Get<uint32_t>();
      stream.sliding_window = in.Get<uint32_t>();
    }
  }
  QUIRE_RETURN_IF_ERROR(in.status("layout"));
  if (in.remaining() > 0) return bad(absl::StrCat(in.remaining(), " bytes too many"));
  if (absl::Status valid = layout.Validate(); !valid.ok()) return bad(std::string(valid.message()));
  return layout;
}

Digest Layout::Fingerprint() const { return Sha256().Update(Serialize()).Finish(); }

uint64_t Layout::RawBlockBytes() const {
  uint64_t elements = 0;
  for (const LayerLayout& layer : layers) {
    for (const StreamLayout& s : layer.streams) elements += uint64_t{kBlockTokens} * s.heads * s.dim;
  }
  return elements * SizeOf(dtype);
}

Part Part::Whole(const Layout& layout) {
  Part part{0, static_cast<uint32_t>(layout.layers.size()), 0, 0};
  for (const LayerLayout& layer : layout.layers) part.head_end = std::max(part.head_end, layer.heads());
  return part;
}

absl::Status Part::Validate(const Layout& layout) const {
  Part whole = Whole(layout);
  if (layer_begin >= layer_end || layer_end > whole.layer_end) {
    return absl::InvalidArgumentError(absl::StrCat("part: layers [", layer_begin, ", ", layer_end,
                                                   ") must be a range within the layout's ",
                                                   whole.layer_end));
  }
  if (head_begin >= head_end || head_end > whole.head_end) {
    return absl::InvalidArgumentError(absl::StrCat("part: heads [", head_begin, ", ", head_end,
                                                   ") must be a range within the layout's ", whole.head_end));
  }
  for (uint32_t l = layer_begin; l < layer_end; ++l) {
    if (HeadsOf(layout.layers[l]) > 0) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("part: no layer of [", layer_begin, ", ", layer_end,
                                                 ") has a head in [", head_begin, ", ", head_end, ")"));
}

bool Part::Covers(const Part& other) const {
  return layer_begin <= other.layer_begin && other.layer_end <= layer_end && head_begin <= other.head_begin &&
         other.head_end <= head_end;
}

uint32_t Part::HeadsOf(const LayerLayout& layer) const {
  return std::min(head_end, layer.heads()) - std::min(head_begin, layer.heads());
}

}  // namespace quire

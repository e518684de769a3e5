#include "services/store/wire/convert.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/api/limits.h"

namespace quire::store {
namespace {

Tier TierFromProto(v1::Tier tier) {
  return v1::Tier_IsValid(tier) ? static_cast<Tier>(static_cast<int>(tier)) : Tier::kNone;
}

absl::StatusOr<StreamLayout> FromProto(const v1::StreamLayout& message) {
  if (!v1::StreamKind_IsValid(message.kind())) {
    return absl::InvalidArgumentError(
        absl::StrCat("layout: stream kind ", static_cast<int>(message.kind()), " is not known"));
  }
  return StreamLayout{static_cast<StreamKind>(message.kind()), message.heads(), message.dim(),
                      message.sliding_window()};
}

absl::Status CheckSmall(const char* field, uint32_t value) {
  if (value <= UINT16_MAX) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("layout: ", field, " ", value, " is not known"));
}

}  // namespace

absl::StatusOr<DType> FromProto(v1::DType dtype) {
  if (!v1::DType_IsValid(dtype)) {
    return absl::InvalidArgumentError(absl::StrCat("dtype ", static_cast<int>(dtype), " is not known"));
  }
  return static_cast<DType>(dtype);
}

v1::DType ToProto(DType dtype) { return static_cast<v1::DType>(dtype); }

absl::StatusOr<Layout> FromProto(const v1::Layout& message) {
  if (static_cast<uint32_t>(message.layers_size()) > kMaxLayers) {
    return absl::InvalidArgumentError(
        absl::StrCat("layout: ", message.layers_size(), " layers, at most ", kMaxLayers));
  }
  Layout layout;
  QUIRE_ASSIGN_OR_RETURN(layout.model_digest,
                         DigestFromProto("layout: model_digest", message.model_digest()));
  QUIRE_ASSIGN_OR_RETURN(layout.dtype, FromProto(message.dtype()));
  QUIRE_RETURN_IF_ERROR(CheckSmall("rotation_id", message.rotation_id()));
  QUIRE_RETURN_IF_ERROR(CheckSmall("codebook_id", message.codebook_id()));
  layout.rope_state = message.rope_state();
  if (message.rotation_id() != 0) layout.rotation = static_cast<RotationId>(message.rotation_id());
  if (message.has_rotation_seed()) layout.rotation_seed = message.rotation_seed();
  if (message.codebook_id() != 0) layout.codebook = static_cast<CodebookId>(message.codebook_id());
  if (message.block_tokens() != 0) layout.block_tokens = message.block_tokens();
  layout.layers.reserve(static_cast<size_t>(message.layers_size()));
  for (const v1::LayerLayout& layer : message.layers()) {
    if (layer.streams_size() > 2) {
      return absl::InvalidArgumentError(absl::StrCat("layout: layer ", layout.layers.size(), " has ",
                                                     layer.streams_size(), " streams, at most 2"));
    }
    LayerLayout& out = layout.layers.emplace_back();
    for (const v1::StreamLayout& stream : layer.streams()) {
      QUIRE_ASSIGN_OR_RETURN(StreamLayout converted, FromProto(stream));
      out.streams.push_back(converted);
    }
  }
  QUIRE_RETURN_IF_ERROR(layout.Validate());
  return layout;
}

void ToProto(const Layout& layout, v1::Layout* message) {
  message->Clear();
  message->set_model_digest(std::string(layout.model_digest.AsString()));
  message->set_dtype(ToProto(layout.dtype));
  message->set_rope_state(layout.rope_state);
  message->set_rotation_id(static_cast<uint32_t>(layout.rotation));
  message->set_rotation_seed(layout.rotation_seed);
  message->set_codebook_id(static_cast<uint32_t>(layout.codebook));
  message->set_block_tokens(layout.block_tokens);
  for (const LayerLayout& layer : layout.layers) {
    v1::LayerLayout* out = message->add_layers();
    for (const StreamLayout& stream : layer.streams) {
      v1::StreamLayout* s = out->add_streams();
      s->set_kind(static_cast<v1::StreamKind>(stream.kind));
      s->set_heads(stream.heads);
      s->set_dim(stream.dim);
      s->set_sliding_window(stream.sliding_window);
    }
  }
}

Part FromProto(const v1::Part& m) { return {m.layer_begin(), m.layer_end(), m.head_begin(), m.head_end()}; }

void ToProto(const Part& part, v1::Part* message) {
  message->set_layer_begin(part.layer_begin);
  message->set_layer_end(part.layer_end);
  message->set_head_begin(part.head_begin);
  message->set_head_end(part.head_end);
}

absl::StatusOr<Digest> DigestFromProto(std::string_view what, const std::string& bytes) {
  std::optional<Digest> digest = Digest::FromBytes(bytes);
  if (!digest) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(what), " has ", bytes.size(), " bytes: 32 are wanted"));
  }
  return *digest;
}

absl::StatusOr<Namespace> FromProto(const v1::Namespace& message) {
  if (message.tenant().size() > kMaxTenantBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("namespace.tenant has ", message.tenant().size(), " bytes: at most ", kMaxTenantBytes));
  }
  Namespace ns;
  ns.tenant = message.tenant();
  QUIRE_ASSIGN_OR_RETURN(ns.fingerprint, DigestFromProto("namespace.fingerprint", message.fingerprint()));
  return ns;
}

void ToProto(const Namespace& ns, v1::Namespace* message) {
  message->set_tenant(ns.tenant);
  message->set_fingerprint(std::string(ns.fingerprint.AsString()));
}

absl::StatusOr<std::vector<Digest>> PackedKeys(std::string_view keys) {
  constexpr size_t kKeyBytes = sizeof(Digest::bytes);
  if (keys.size() % kKeyBytes != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("packed keys of ", keys.size(), " bytes: each has ", kKeyBytes));
  }
  std::vector<Digest> out(keys.size() / kKeyBytes);
  for (size_t i = 0; i < out.size(); ++i)
    std::memcpy(out[i].bytes.data(), keys.data() + i * kKeyBytes, kKeyBytes);
  return out;
}

absl::StatusOr<BlockAnnounce> FromProto(const v1::BlockAnnounce& message) {
  BlockAnnounce block;
  QUIRE_ASSIGN_OR_RETURN(block.identity.key, DigestFromProto("key", message.key()));
  QUIRE_ASSIGN_OR_RETURN(block.identity.parent, DigestFromProto("parent", message.parent()));
  block.identity.index = message.index();
  block.bytes = message.bytes();
  return block;
}

void ToProto(const BlockIdentity& identity, uint64_t bytes, v1::BlockAnnounce* message) {
  message->set_key(std::string(identity.key.AsString()));
  message->set_parent(std::string(identity.parent.AsString()));
  message->set_index(identity.index);
  message->set_bytes(bytes);
}

absl::StatusOr<std::vector<BlockAnnounce>> AnnouncesFromProto(
    const google::protobuf::RepeatedPtrField<v1::BlockAnnounce>& blocks) {
  if (static_cast<size_t>(blocks.size()) > kMaxBlocks) {
    return absl::InvalidArgumentError(
        absl::StrCat(blocks.size(), " blocks: at most ", kMaxBlocks, " a request"));
  }
  std::vector<BlockAnnounce> out;
  out.reserve(static_cast<size_t>(blocks.size()));
  for (const v1::BlockAnnounce& message : blocks) {
    absl::StatusOr<BlockAnnounce> block = FromProto(message);
    if (!block.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("block ", out.size(), ": ", std::string(block.status().message())));
    }
    out.push_back(*block);
  }
  return out;
}

void ToProto(const BlockState& state, v1::BlockState* message) {
  message->set_state(static_cast<v1::BlockState::State>(state.state));
  message->set_tier(static_cast<v1::Tier>(state.tier));
  message->set_levels(state.levels);
  message->set_codec(state.codec);
  message->set_bytes(state.bytes);
  message->set_fetch_us(state.fetch_us);
}

BlockState FromProto(const v1::BlockState& message) {
  BlockState state;
  if (v1::BlockState::State_IsValid(message.state()))
    state.state = static_cast<BlockState::State>(message.state());
  state.tier = TierFromProto(message.tier());
  state.levels = message.levels();
  state.codec = message.codec();
  state.bytes = message.bytes();
  state.fetch_us = message.fetch_us();
  return state;
}

void ToProto(std::span<const BlockState> states, bool runs,
             google::protobuf::RepeatedPtrField<v1::BlockState>* messages) {
  if (!runs) messages->Reserve(static_cast<int>(states.size()));
  while (!states.empty()) {
    size_t run = 1;
    while (runs && run < states.size() && states[run] == states[0]) ++run;
    v1::BlockState* message = messages->Add();
    ToProto(states[0], message);
    if (run > 1) message->set_run(static_cast<uint32_t>(run));
    states = states.subspan(run);
  }
}

absl::StatusOr<std::vector<BlockState>> StatesFromProto(
    const google::protobuf::RepeatedPtrField<v1::BlockState>& messages, size_t most) {
  std::vector<BlockState> states;
  for (const v1::BlockState& message : messages) {
    const size_t run = std::max<uint32_t>(message.run(), 1);
    if (run > most - states.size())
      return absl::ResourceExhaustedError(absl::StrCat("states of more than ", most, " blocks"));
    states.insert(states.end(), run, FromProto(message));
  }
  return states;
}

void ToProto(const StoreStats& stats, v1::StatsResponse* message) {
  for (const TierStats& tier : stats.tiers) {
    v1::TierStats* out = message->add_tiers();
    out->set_tier(static_cast<v1::Tier>(tier.tier));
    out->set_capacity_bytes(tier.capacity_bytes);
    out->set_used_bytes(tier.used_bytes);
    out->set_blocks(tier.blocks);
    out->set_raw_bytes(tier.raw_bytes);
  }
  message->set_lookups(stats.lookups);
  message->set_hit_tokens(stats.hit_tokens);
  message->set_miss_tokens(stats.miss_tokens);
  message->set_blocks_stored(stats.blocks_stored);
  message->set_blocks_evicted(stats.blocks_evicted);
  message->set_blocks_deleted(stats.blocks_deleted);
  message->set_checksum_failures(stats.checksum_failures);
  message->set_raw_bytes_stored(stats.raw_bytes_stored);
  message->set_put_sessions(stats.put_sessions);
  message->set_layouts(stats.layouts);
}

StoreStats FromProto(const v1::StatsResponse& message) {
  StoreStats stats;
  for (const v1::TierStats& tier : message.tiers()) {
    stats.tiers.push_back({TierFromProto(tier.tier()), tier.capacity_bytes(), tier.used_bytes(),
                           tier.blocks(), tier.raw_bytes()});
  }
  stats.lookups = message.lookups();
  stats.hit_tokens = message.hit_tokens();
  stats.miss_tokens = message.miss_tokens();
  stats.blocks_stored = message.blocks_stored();
  stats.blocks_evicted = message.blocks_evicted();
  stats.blocks_deleted = message.blocks_deleted();
  stats.checksum_failures = message.checksum_failures();
  stats.raw_bytes_stored = message.raw_bytes_stored();
  stats.put_sessions = message.put_sessions();
  stats.layouts = message.layouts();
  return stats;
}

}  // namespace quire::store

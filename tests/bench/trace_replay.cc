#include "tests/bench/trace_replay.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/block/keys.h"

namespace quire::bench {
namespace {

using store::LocalStore;

// Objects of a codec with any identity: the payload is coded once, the header is written anew.
class Objects {
 public:
  static absl::StatusOr<Objects> Create(const Layout& layout, const std::string& codec) {
    QUIRE_ASSIGN_OR_RETURN(CodecSpec spec, CodecSpec::Parse(codec));
    QUIRE_ASSIGN_OR_RETURN(auto block_codec, BlockCodec::Create(layout, Part::Whole(layout)));
    std::mt19937 generator(5);
    std::normal_distribution<float> normal;
    uint32_t dim = layout.layers[0].key_dim();
    std::vector<float> values(size_t{kBlockTokens} * dim);
    for (float& v : values) v = normal(generator);
    StreamView stream{values.data(), DType::kF32, dim, dim};
    std::vector<LayerView> views(layout.layers.size(), LayerView{stream, stream});
    Objects objects;
    for (uint32_t kind : {0u, 1u}) {  // a sequence's first block has sinks
      QUIRE_RETURN_IF_ERROR(block_codec->Encode(spec, {{}, {}, kind}, views, &objects.bytes_[kind]));
      QUIRE_ASSIGN_OR_RETURN(objects.headers_[kind], ParseHeader(objects.bytes_[kind]));
    }
    return objects;
  }
  uint64_t Size(uint32_t index) const { return bytes_[index > 0].size(); }
  // Valid until the next call.
  Bytes Of(const BlockIdentity& identity) {
    bool later = identity.index > 0;
    headers_[later].identity = identity;
    std::vector<uint8_t> header = SerializeHeader(headers_[later]);
    std::memcpy(bytes_[later].data(), header.data(), header.size());
    return bytes_[later];
  }

 private:
  BlockHeader headers_[2];
  std::vector<uint8_t> bytes_[2];
};

class Player {
 public:
  Player(std::shared_ptr<LocalStore> kv, Objects objects, const Digest& fingerprint)
      : kv_(std::move(kv)), objects_(std::move(objects)), ns_{"", fingerprint} {}

  absl::Status Play(const TraceRequest& request, ReplayResult& result) {
    std::vector<BlockIdentity> chain;
    std::vector<Digest> keys;
    Digest parent = RootKey(ns_.fingerprint, "trace");
    for (uint32_t id : request.ids) {
      keys.push_back(Sha256().UpdateU32(id).Finish());
      chain.push_back({parent, keys.back(), static_cast<uint32_t>(chain.size())});
      parent = keys.back();
    }
    QUIRE_ASSIGN_OR_RETURN(store::LookupResult found, kv_->Lookup(ns_, keys, {}));
    std::span<const BlockIdentity> blocks(chain);
    QUIRE_RETURN_IF_ERROR(Fetch(blocks.first(found.prefix_blocks), result));
    return Store(blocks, result);
  }

 private:
  absl::Status Fetch(std::span<const BlockIdentity> blocks, ReplayResult& result) {
    if (blocks.empty()) return absl::OkStatus();
    store::GetSink sink;
    sink.on_block = [&](uint32_t, Bytes object) -> absl::Status {
      QUIRE_ASSIGN_OR_RETURN(BlockHeader header, ParseHeader(object));
      size_t level = 0;
      while (header.levels[level].end() != object.size()) ++level;
      ++result.hits, ++result.by_levels[level];
      return absl::OkStatus();
    };
    sink.on_miss = [](uint32_t, const absl::Status& why) { return why; };  // nobody else evicts
    return kv_->Get(ns_, blocks, {}, sink);
  }

  absl::Status Store(std::span<const BlockIdentity> blocks, ReplayResult& result) {
    std::vector<store::BlockAnnounce> announces;
    for (const BlockIdentity& block : blocks) announces.push_back({block, objects_.Size(block.index)});
    QUIRE_ASSIGN_OR_RETURN(auto session, kv_->BeginPut(ns_, announces, {}));
    for (uint32_t i : session->wanted()) {
      QUIRE_RETURN_IF_ERROR(session->Write(i, 0, objects_.Of(blocks[i])));
      absl::Status status = session->Commit(i).status();
      if (absl::IsResourceExhausted(status) || absl::IsFailedPrecondition(status)) {
        ++result.refused;  // a chain longer than the store keeps its beginning
        continue;
      }
      QUIRE_RETURN_IF_ERROR(status);
      ++result.stored;
    }
    return absl::OkStatus();
  }

  std::shared_ptr<LocalStore> kv_;
  Objects objects_;
  store::Namespace ns_;
};

}  // namespace

Layout ReplayLayout() { return Layout::Uniform(Sha256().Update("trace").Finish(), 1, 1, 256); }

absl::StatusOr<ReplayResult> Replay(const Trace& trace, const ReplayOptions& options) {
  auto start = std::chrono::steady_clock::now();
  int64_t now_ms = 1;
  store::LocalStoreOptions store_options;
  store_options.host_bytes = options.host_bytes;
  store_options.max_announced_bytes = UINT64_MAX;
  store_options.floor_levels = options.floor_levels;
  store_options.placement.policy = options.policy;
  store_options.now_ms = [&now_ms] { return now_ms; };
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<LocalStore> kv, LocalStore::Create(store_options));
  QUIRE_ASSIGN_OR_RETURN(Objects objects, Objects::Create(ReplayLayout(), options.codec));
  QUIRE_ASSIGN_OR_RETURN(Digest fingerprint, kv->RegisterLayout(ReplayLayout()));
  Player player(kv, std::move(objects), fingerprint);
  ReplayResult result;
  for (const TraceRequest& request : trace.requests) {
    now_ms = std::max(now_ms, request.timestamp_ms + 1);
    QUIRE_RETURN_IF_ERROR(player.Play(request, result));
  }
  QUIRE_ASSIGN_OR_RETURN(store::StoreStats stats, kv->Stats());
  result.used = static_cast<double>(stats.tiers[0].used_bytes) / static_cast<double>(options.host_bytes);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace quire::bench

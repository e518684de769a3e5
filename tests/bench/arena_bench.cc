#include "tests/bench/arena_bench.h"

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/block/keys.h"
#include "core/block/object.h"
#include "services/runtime/metrics.h"
#include "services/runtime/server.h"
#include "services/store/arena/attached_arena.h"
#include "services/store/client/remote_store.h"
#include "services/store/engine/local_store.h"
#include "services/store/server/store_services.h"

namespace quire::bench {
namespace {

// The shape of an 8B model: 64 tokens of it are 8 MiB raw.
constexpr uint32_t kLayers = 32, kHeads = 8, kDim = 128;
constexpr uint32_t kBlocks = 64;
constexpr uint64_t kArenaBytes = uint64_t{128} << 20;
constexpr int kRuns = 9;

struct Chain {
  Layout layout;
  std::vector<BlockIdentity> identities;
  std::vector<Digest> keys;
  std::vector<std::vector<uint8_t>> objects;
  std::vector<store::PutBlock> blocks;
  uint64_t bytes = 0;
};

absl::StatusOr<Chain> MakeChain() {
  Chain chain;
  chain.layout = Layout::Uniform(Sha256().Update("quire-bench").Finish(), kLayers, kHeads, kDim);
  QUIRE_ASSIGN_OR_RETURN(auto codec, BlockCodec::Create(chain.layout, Part::Whole(chain.layout)));
  std::vector<float> values(size_t{kBlockTokens} * kHeads * kDim);
  std::mt19937 generator(3);
  std::normal_distribution<float> normal;
  for (float& v : values) v = normal(generator);
  StreamView stream{values.data(), DType::kF32, kHeads * kDim, kDim};
  std::vector<LayerView> layers(kLayers, LayerView{stream, stream});
  Digest parent = RootKey(codec->fingerprint(), "arena");
  for (uint32_t i = 0; i < kBlocks; ++i) {
    std::vector<uint32_t> tokens(kBlockTokens, i);
    BlockIdentity identity{parent, BlockKey(parent, tokens), i};
    QUIRE_RETURN_IF_ERROR(codec->Encode(CodecSpec(), identity, layers, &chain.objects.emplace_back()));
    chain.identities.push_back(identity);
    chain.keys.push_back(identity.key);
    chain.bytes += chain.objects.back().size();
    parent = identity.key;
  }
  for (uint32_t i = 0; i < kBlocks; ++i) chain.blocks.push_back({chain.identities[i], chain.objects[i]});
  return chain;
}

// Seconds that one thread takes to copy all objects to a buffer of the arena's size, one after the other.
double CopySeconds(const Chain& chain) {
  std::vector<uint8_t> to(kArenaBytes);
  return MedianSeconds(
      [&] {
        size_t at = 0;
        for (const auto& object : chain.objects) {
          if (at + object.size() > to.size()) at = 0;
          std::memcpy(to.data() + at, object.data(), object.size());
          at += object.size();
        }
      },
      kRuns);
}

}  // namespace

absl::Status RunArenaBench(Report& report) {
  QUIRE_ASSIGN_OR_RETURN(Chain chain, MakeChain());
  store::LocalStoreOptions options;
  options.host_bytes = uint64_t{1} << 30;
  options.host_prefault = true;
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<store::LocalStore> served, store::LocalStore::Create(options));
  auto registry = runtime::NewRegistry();
  store::StoreServices services(served, *registry);
  QUIRE_ASSIGN_OR_RETURN(auto server, runtime::Server::Start({}, services.services()));
  QUIRE_ASSIGN_OR_RETURN(auto channel, runtime::NewChannel(server->address()));
  store::RemoteStoreOptions client;
  client.arena_bytes = kArenaBytes;
  absl::Status failure;
  auto check = [&](const absl::Status& s) {
    if (failure.ok()) failure = s;
  };
  {
    store::RemoteStore remote(channel, client);
    if (remote.arena() == nullptr) return absl::UnavailableError("the store hands out no arena");
    QUIRE_ASSIGN_OR_RETURN(Digest fingerprint, remote.RegisterLayout(chain.layout));
    const store::Namespace ns{"", fingerprint};
    auto put = [&] {
      std::vector<store::PutOutcome> outcomes;
      check(remote.PutBlocks(ns, chain.blocks, {}, &outcomes));
      for (const store::PutOutcome& outcome : outcomes) check(outcome.status);
    };
    store::GetSink sink;
    sink.on_block = [](uint32_t, Bytes) { return absl::OkStatus(); };
    sink.on_miss = [](uint32_t, const absl::Status& why) { return why; };

    const double copy = CopySeconds(chain);
    // Every Put must store: each run ends with a Delete, whose time is small beside the bytes moved.
    const double put_seconds = MedianSeconds(
        [&] {
          put();
          check(remote.Delete(ns, chain.keys, true).status());
        },
        kRuns);
    put();
    const double get_seconds =
        MedianSeconds([&] { check(remote.Get(ns, chain.identities, {}, sink)); }, kRuns);
    QUIRE_RETURN_IF_ERROR(failure);
    const double gigabytes = static_cast<double>(chain.bytes) * 1e-9;
    const std::string context = absl::StrCat(kBlocks, " blocks of ", chain.objects[1].size(),
                                             " bytes (8 MiB raw), verified by store and client, arena of ",
                                             kArenaBytes >> 20, " MiB");
    report.Add({"put/arena", gigabytes / put_seconds, "GB/s", "memcpy", gigabytes / copy, 0.6, context});
    report.Add({"get/arena", gigabytes / get_seconds, "GB/s", "memcpy", gigabytes / copy, 0.7, context});
  }
  server->Shutdown(std::chrono::milliseconds(0));
  return failure;
}

}  // namespace quire::bench

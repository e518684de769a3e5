#include "tests/bench/store_bench.h"

#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/block/keys.h"
#include "core/block/object.h"
#include "services/runtime/metrics.h"
#include "services/runtime/server.h"
#include "services/store/client/remote_store.h"
#include "services/store/engine/local_store.h"
#include "services/store/server/store_services.h"

namespace quire::bench {
namespace {

using store::BlockAnnounce;
using store::KvStore;

// The shape of an 8B model: 64 tokens of it are 8 MiB raw.
constexpr uint32_t kLayers = 32, kHeads = 8, kDim = 128;
constexpr int kBlocks = 32;
constexpr uint64_t kWriteBytes = 1 << 20;
constexpr int kLookupBlocks = 512;

// A chain of coded blocks. All have the same payload, encoded once: the store looks at headers and checksums,
// not at values.
struct Chain {
  Layout layout;
  Digest root;
  std::vector<BlockAnnounce> announces;
  std::vector<BlockIdentity> identities;
  std::vector<std::vector<uint8_t>> objects;
  uint64_t bytes = 0;
};

absl::StatusOr<Chain> MakeChain(std::string_view salt) {
  Chain chain;
  chain.layout = Layout::Uniform(Sha256().Update("quire-bench").Finish(), kLayers, kHeads, kDim);
  QUIRE_ASSIGN_OR_RETURN(auto codec, BlockCodec::Create(chain.layout, Part::Whole(chain.layout)));
  chain.root = RootKey(codec->fingerprint(), salt);
  std::vector<float> values(size_t{kBlockTokens} * kHeads * kDim);
  std::mt19937 generator(3);
  std::normal_distribution<float> normal;
  for (float& v : values) v = normal(generator);
  StreamView stream{values.data(), DType::kF32, kHeads * kDim, kDim};
  std::vector<LayerView> layers(kLayers, LayerView{stream, stream});

  Digest parent = chain.root;
  for (uint32_t i = 0; i < kBlocks; ++i) {
    std::vector<uint32_t> tokens(kBlockTokens, i);
    BlockIdentity identity{parent, BlockKey(parent, tokens), i};
    chain.objects.emplace_back();
    QUIRE_RETURN_IF_ERROR(codec->Encode(CodecSpec(), identity, layers, &chain.objects.back()));
    chain.identities.push_back(identity);
    chain.announces.push_back({identity, chain.objects.back().size()});
    chain.bytes += chain.objects.back().size();
    parent = identity.key;
  }
  return chain;
}

absl::Status PutAll(KvStore& kv, const store::Namespace& ns, const Chain& chain) {
  QUIRE_ASSIGN_OR_RETURN(auto session, kv.BeginPut(ns, chain.announces, {}));
  for (uint32_t block : session->wanted()) {
    Bytes object = chain.objects[block];
    for (uint64_t at = 0; at < object.size(); at += kWriteBytes) {
      QUIRE_RETURN_IF_ERROR(
          session->Write(block, at, object.subspan(at, std::min(kWriteBytes, object.size() - at))));
    }
    QUIRE_RETURN_IF_ERROR(session->Commit(block).status());
  }
  return absl::OkStatus();
}

absl::Status GetAll(KvStore& kv, const store::Namespace& ns, const Chain& chain) {
  store::GetSink sink;
  sink.on_block = [](uint32_t, Bytes) { return absl::OkStatus(); };
  sink.on_miss = [](uint32_t, const absl::Status& why) { return why; };
  return kv.Get(ns, chain.identities, {}, sink);
}

// One way to reach the store, measured against memcpy of the objects.
absl::Status Measure(Report& report, const std::string& path, KvStore& kv, const Chain& chain,
                     double memcpy_rate) {
  QUIRE_ASSIGN_OR_RETURN(Digest fingerprint, kv.RegisterLayout(chain.layout));
  store::Namespace ns{"", fingerprint};
  std::vector<Digest> keys;
  for (const BlockIdentity& i : chain.identities) keys.push_back(i.key);

  absl::Status failure;
  auto check = [&](const absl::Status& s) {
    if (failure.ok()) failure = s;
  };
  // Every Put must store: each run ends with a Delete, whose time is small beside the bytes moved.
  double put = MedianSeconds(
      [&] {
        check(PutAll(kv, ns, chain));
        check(kv.Delete(ns, keys, true).status());
      },
      5);
  check(PutAll(kv, ns, chain));
  double get = MedianSeconds([&] { check(GetAll(kv, ns, chain)); }, 5);

  std::vector<Digest> prompt = keys;
  while (prompt.size() < kLookupBlocks)
    prompt.push_back(Sha256().UpdateU32(static_cast<uint32_t>(prompt.size())).Finish());
  store::LookupOptions all;
  all.all = true;
  double lookup = MedianSeconds([&] { check(kv.Lookup(ns, prompt, all).status()); }, 200);
  QUIRE_RETURN_IF_ERROR(failure);

  std::string context =
      absl::StrCat(kBlocks, " blocks of ", chain.objects[0].size(), " bytes (8 MiB raw), verified");
  report.Add({absl::StrCat("put/", path), chain.bytes / put * 1e-9, "GB/s", "memcpy", memcpy_rate,
              std::nullopt, context});
  report.Add({absl::StrCat("get/", path), chain.bytes / get * 1e-9, "GB/s", "memcpy", memcpy_rate,
              std::nullopt, context});
  report.Add({absl::StrCat("lookup/", path), lookup * 1e6, "us", "", 0, std::nullopt,
              absl::StrCat(kLookupBlocks, "-block prompt, median")});
  return absl::OkStatus();
}

}  // namespace

absl::Status RunStoreBench(Report& report) {
  QUIRE_ASSIGN_OR_RETURN(Chain chain, MakeChain("bench"));
  std::vector<uint8_t> copy(chain.objects[0].size());
  double memcpy_rate = chain.bytes * 1e-9 / MedianSeconds([&] {
                         for (const auto& object : chain.objects)
                           std::memcpy(copy.data(), object.data(), object.size());
                       });

  store::LocalStoreOptions options;
  options.host_bytes = uint64_t{1} << 30;
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<store::LocalStore> local, store::LocalStore::Create(options));
  QUIRE_RETURN_IF_ERROR(Measure(report, "in-process", *local, chain, memcpy_rate));

  auto registry = runtime::NewRegistry();
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<store::LocalStore> served, store::LocalStore::Create(options));
  store::StoreServices services(served, *registry);
  QUIRE_ASSIGN_OR_RETURN(auto server, runtime::Server::Start({}, services.services()));
  server->SetServing(true);
  QUIRE_ASSIGN_OR_RETURN(auto channel, runtime::NewChannel(server->address()));
  store::RemoteStore remote(channel);
  absl::Status status = Measure(report, "grpc-loopback", remote, chain, memcpy_rate);
  server->Shutdown(std::chrono::milliseconds(0));
  return status;
}

}  // namespace quire::bench

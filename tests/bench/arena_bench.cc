#include "tests/bench/arena_bench.h"

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/runtime/metrics.h"
#include "services/runtime/server.h"
#include "services/store/arena/attached_arena.h"
#include "services/store/client/remote_store.h"
#include "services/store/engine/local_store.h"
#include "services/store/server/store_services.h"
#include "tests/bench/store_chain.h"

namespace quire::bench {
namespace {

constexpr uint64_t kArenaBytes = uint64_t{128} << 20;
constexpr int kRuns = 9;

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
  QUIRE_ASSIGN_OR_RETURN(Chain chain, MakeChain("arena-bench"));
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
    const std::vector<Digest> keys = chain.keys();
    const std::vector<store::PutBlock> blocks = chain.blocks();

    const double copy = CopySeconds(chain);
    // Every Put must store: each run ends with a Delete, whose time is small beside the bytes moved.
    const double put_seconds = MedianSeconds(
        [&] {
          check(PutBlocks(remote, ns, blocks));
          check(remote.Delete(ns, keys, true).status());
        },
        kRuns);
    check(PutBlocks(remote, ns, blocks));
    const double get_seconds = MedianSeconds([&] { check(GetAll(remote, ns, chain)); }, kRuns);
    QUIRE_RETURN_IF_ERROR(failure);
    const double gigabytes = static_cast<double>(chain.bytes) * 1e-9;
    const std::string context = absl::StrCat(kChainBlocks, " blocks of ", chain.objects.back().size(),
                                             " bytes (8 MiB raw), verified by store and client, arena of ",
                                             kArenaBytes >> 20, " MiB");
    report.Add({"put/arena", gigabytes / put_seconds, "GB/s", "memcpy", gigabytes / copy, 0.6, context});
    report.Add({"get/arena", gigabytes / get_seconds, "GB/s", "memcpy", gigabytes / copy, 0.7, context});
  }
  server->Shutdown(std::chrono::milliseconds(0));
  return failure;
}

}  // namespace quire::bench

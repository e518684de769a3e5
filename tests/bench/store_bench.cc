#include "tests/bench/store_bench.h"

#include <cstring>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/engine/local_store.h"
#include "tests/bench/store_chain.h"

namespace quire::bench {
namespace {

using store::KvStore;

constexpr int kLookupBlocks = 512;

// One way to reach the store, measured against memcpy of the objects.
absl::Status Measure(Report& report, const std::string& path, KvStore& kv, const Chain& chain,
                     double memcpy_rate) {
  QUIRE_ASSIGN_OR_RETURN(Digest fingerprint, kv.RegisterLayout(chain.layout));
  store::Namespace ns{"", fingerprint};
  const std::vector<Digest> keys = chain.keys();

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
      absl::StrCat(kChainBlocks, " blocks of ", chain.objects.back().size(), " bytes (8 MiB raw), verified");
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
  return Measure(report, "in-process", *local, chain, memcpy_rate);
}

}  // namespace quire::bench

#include "services/cli/commands.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "services/cli/files.h"
#include "services/cli/inspect.h"
#include "services/cli/layout_file.h"
#include "services/store/client/remote_store.h"

namespace quire::cli {
namespace {

using nlohmann::ordered_json;
using store::BlockState;

constexpr int kDone = 0, kMissing = 2;

// A store and the namespace of one layout in it.
struct Session {
  std::unique_ptr<store::RemoteStore> store;
  store::Namespace ns;
};

absl::StatusOr<std::unique_ptr<store::RemoteStore>> Connect(const Arguments& arguments) {
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel,
                         runtime::NewChannel(arguments.store, arguments.channel));
  store::RemoteStoreOptions options;
  options.call_timeout = options.stream_timeout = std::chrono::seconds(arguments.timeout_seconds);
  return std::make_unique<store::RemoteStore>(std::move(channel), options);
}

absl::StatusOr<Session> Open(const Arguments& arguments) {
  QUIRE_ASSIGN_OR_RETURN(Layout layout, ReadLayoutFile(arguments.layout));
  Session session;
  QUIRE_ASSIGN_OR_RETURN(session.store, Connect(arguments));
  session.ns.tenant = arguments.tenant;
  QUIRE_ASSIGN_OR_RETURN(session.ns.fingerprint, session.store->RegisterLayout(layout));
  return session;
}

absl::StatusOr<Digest> ParseKey(const std::string& hex) {
  if (std::optional<Digest> key = Digest::FromHex(hex)) return *key;
  return absl::InvalidArgumentError(absl::StrCat("key ", hex, " is not 64 hex digits"));
}

absl::StatusOr<std::vector<Digest>> ParseKeys(const Arguments& arguments) {
  std::vector<Digest> keys;
  for (const std::string& hex : arguments.keys) {
    QUIRE_ASSIGN_OR_RETURN(Digest key, ParseKey(hex));
    keys.push_back(key);
  }
  return keys;
}

const char* TierName(store::Tier tier) {
  constexpr const char* kNames[] = {"none", "gpu", "host", "disk", "redis"};
  return kNames[static_cast<int>(tier)];
}

void PrintJson(const ordered_json& value, std::ostream& out) { out << value.dump(2) << "\n"; }

}  // namespace

absl::StatusOr<int> Stats(const Arguments& arguments, std::ostream& out) {
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<store::RemoteStore> store, Connect(arguments));
  QUIRE_ASSIGN_OR_RETURN(store::StoreStats stats, store->Stats());
  ordered_json tiers = ordered_json::array();
  uint64_t used = 0;
  for (const store::TierStats& t : stats.tiers) {
    used += t.used_bytes;
    tiers.push_back({{"tier", TierName(t.tier)},
                     {"capacity_bytes", t.capacity_bytes},
                     {"used_bytes", t.used_bytes},
                     {"blocks", t.blocks},
                     {"raw_bytes", t.raw_bytes}});
  }
  ordered_json all = {
      {"tiers", tiers},
      {"lookups", stats.lookups},
      {"hit_tokens", stats.hit_tokens},
      {"miss_tokens", stats.miss_tokens},
      {"blocks_stored", stats.blocks_stored},
      {"blocks_evicted", stats.blocks_evicted},
      {"blocks_deleted", stats.blocks_deleted},
      {"checksum_failures", stats.checksum_failures},
      {"raw_bytes_stored", stats.raw_bytes_stored},
      {"compression_ratio",
       used > 0 ? static_cast<double>(stats.raw_bytes_stored) / static_cast<double>(used) : 0},
      {"put_sessions", stats.put_sessions},
      {"layouts", stats.layouts}};
  if (arguments.json) {
    PrintJson(all, out);
    return kDone;
  }
  for (const ordered_json& tier : tiers) {
    out << absl::StrFormat("%-18s %d of %d bytes, %d blocks of %d bytes raw\n",
                           tier["tier"].get<std::string>(), tier["used_bytes"].get<uint64_t>(),
                           tier["capacity_bytes"].get<uint64_t>(), tier["blocks"].get<uint64_t>(),
                           tier["raw_bytes"].get<uint64_t>());
  }
  all.erase("tiers");
  for (const auto& [name, value] : all.items()) out << absl::StrFormat("%-18s %s\n", name, value.dump());
  return kDone;
}

absl::StatusOr<int> Lookup(const Arguments& arguments, std::ostream& out) {
  QUIRE_ASSIGN_OR_RETURN(std::vector<Digest> keys, ParseKeys(arguments));
  QUIRE_ASSIGN_OR_RETURN(Session session, Open(arguments));
  store::LookupOptions options;
  options.all = arguments.all;
  QUIRE_ASSIGN_OR_RETURN(store::LookupResult result, session.store->Lookup(session.ns, keys, options));
  constexpr const char* kStates[] = {"miss", "hit", "pending"};
  ordered_json blocks = ordered_json::array();
  for (size_t i = 0; i < result.blocks.size(); ++i) {
    const BlockState& b = result.blocks[i];
    blocks.push_back({{"key", keys[i].Hex()},
                      {"state", kStates[b.state]},
                      {"tier", TierName(b.tier)},
                      {"levels", b.levels},
                      {"codec", b.codec},
                      {"bytes", b.bytes},
                      {"fetch_us", b.fetch_us}});
  }
  int code = result.prefix_blocks == keys.size() ? kDone : kMissing;
  if (arguments.json) {
    PrintJson({{"prefix_blocks", result.prefix_blocks},
               {"prefix_tokens", result.prefix_blocks * kBlockTokens},
               {"blocks", blocks}},
              out);
    return code;
  }
  out << "prefix " << result.prefix_blocks << " of " << keys.size() << " blocks, "
      << result.prefix_blocks * kBlockTokens << " tokens\n";
  for (const ordered_json& b : blocks) {
    out << absl::StrFormat("%s  %-7s %-5s %-8s %d levels, %d bytes, %d us\n", b["key"].get<std::string>(),
                           b["state"].get<std::string>(), b["tier"].get<std::string>(),
                           b["codec"].get<std::string>(), b["levels"].get<uint32_t>(),
                           b["bytes"].get<uint64_t>(), b["fetch_us"].get<uint64_t>());
  }
  return code;
}

namespace {

struct ObjectFile {
  std::string path;
  std::vector<uint8_t> bytes;
  BlockHeader header;
};

// Parents first, as a put wants them.
absl::StatusOr<std::vector<ObjectFile>> ReadObjects(const std::vector<std::string>& paths) {
  std::vector<ObjectFile> objects;
  for (const std::string& path : paths) {
    ObjectFile object{path, {}, {}};
    QUIRE_ASSIGN_OR_RETURN(object.bytes, ReadFile(path));
    absl::StatusOr<BlockHeader> header = ParseHeader(object.bytes);
    if (!header.ok())
      return absl::Status(header.status().code(),
                          absl::StrCat(path, ": ", std::string(header.status().message())));
    object.header = *std::move(header);
    objects.push_back(std::move(object));
  }
  std::stable_sort(objects.begin(), objects.end(), [](const ObjectFile& a, const ObjectFile& b) {
    return a.header.identity.index < b.header.identity.index;
  });
  for (const ObjectFile& object : objects) {
    if (object.header.part != objects.front().header.part) {
      return absl::InvalidArgumentError(
          absl::StrCat(object.path, " and ", objects.front().path, " hold different parts of their blocks"));
    }
  }
  return objects;
}

}  // namespace

absl::StatusOr<int> Put(const Arguments& arguments, std::ostream& out) {
  QUIRE_ASSIGN_OR_RETURN(std::vector<ObjectFile> objects, ReadObjects(arguments.files));
  QUIRE_ASSIGN_OR_RETURN(Session session, Open(arguments));
  std::vector<store::BlockAnnounce> announces;
  for (const ObjectFile& object : objects) announces.push_back({object.header.identity, object.bytes.size()});
  store::PutOptions options;
  options.part = objects.front().header.part;
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<store::PutSession> put,
                         session.store->BeginPut(session.ns, announces, options));
  uint64_t bytes = 0;
  for (uint32_t i : put->wanted()) {
    QUIRE_RETURN_IF_ERROR(put->Write(i, 0, objects[i].bytes));
    absl::StatusOr<uint64_t> stored = put->Commit(i);
    if (!stored.ok()) {
      return absl::Status(stored.status().code(),
                          absl::StrCat(objects[i].path, ": ", std::string(stored.status().message())));
    }
    bytes += *stored;
  }
  if (arguments.json) {
    PrintJson({{"blocks", objects.size()}, {"stored", put->wanted().size()}, {"bytes", bytes}}, out);
  } else {
    out << "stored " << put->wanted().size() << " of " << objects.size() << " blocks, " << bytes
        << " bytes; the others were there\n";
  }
  return kDone;
}

absl::StatusOr<int> Get(const Arguments& arguments, std::ostream& out) {
  QUIRE_ASSIGN_OR_RETURN(std::vector<Digest> keys, ParseKeys(arguments));
  QUIRE_ASSIGN_OR_RETURN(Digest parent, ParseKey(arguments.parent));
  std::vector<BlockIdentity> blocks;
  for (const Digest& key : keys) {
    blocks.push_back({parent, key, arguments.index + static_cast<uint32_t>(blocks.size())});
    parent = key;
  }
  QUIRE_ASSIGN_OR_RETURN(Session session, Open(arguments));
  std::error_code error;
  std::filesystem::create_directories(arguments.out_folder, error);
  ordered_json results = ordered_json::array();
  int code = kDone;
  store::GetSink sink;
  sink.on_block = [&](uint32_t i, Bytes object) {
    std::string path = absl::StrCat(arguments.out_folder, "/", keys[i].Hex(), ".qkv");
    results.push_back({{"key", keys[i].Hex()}, {"file", path}, {"bytes", object.size()}});
    return WriteFile(path, object);
  };
  sink.on_miss = [&](uint32_t i, const absl::Status& why) {
    code = kMissing;
    results.push_back({{"key", keys[i].Hex()}, {"missing", why.ToString()}});
    return absl::OkStatus();
  };
  store::GetOptions options;
  options.max_bits = arguments.max_bits;
  QUIRE_RETURN_IF_ERROR(session.store->Get(session.ns, blocks, options, sink));
  if (arguments.json) {
    PrintJson(results, out);
    return code;
  }
  for (const ordered_json& r : results) {
    if (r.contains("file")) out << r["file"].get<std::string>() << "  " << r["bytes"] << " bytes\n";
    if (r.contains("missing"))
      out << r["key"].get<std::string>() << "  " << r["missing"].get<std::string>() << "\n";
  }
  return code;
}

absl::StatusOr<int> Delete(const Arguments& arguments, std::ostream& out) {
  QUIRE_ASSIGN_OR_RETURN(std::vector<Digest> keys, ParseKeys(arguments));
  QUIRE_ASSIGN_OR_RETURN(Session session, Open(arguments));
  QUIRE_ASSIGN_OR_RETURN(uint32_t deleted, session.store->Delete(session.ns, keys, arguments.force));
  if (arguments.json) {
    PrintJson({{"deleted", deleted}}, out);
  } else {
    out << "deleted " << deleted << " of " << keys.size() << " blocks\n";
  }
  return kDone;
}

absl::StatusOr<int> Inspect(const Arguments& arguments, std::ostream& out) {
  ordered_json all = ordered_json::array();
  for (const std::string& path : arguments.files) {
    QUIRE_ASSIGN_OR_RETURN(std::vector<uint8_t> bytes, ReadFile(path));
    absl::StatusOr<ordered_json> inspection = InspectObject(bytes);
    if (!inspection.ok()) {
      return absl::Status(inspection.status().code(),
                          absl::StrCat(path, ": ", std::string(inspection.status().message())));
    }
    if (!arguments.json) {
      if (arguments.files.size() > 1) out << path << ":\n";
      PrintInspection(*inspection, out);
    }
    all.push_back(*std::move(inspection));
  }
  if (arguments.json) PrintJson(all.size() == 1 ? all[0] : all, out);
  return kDone;
}

}  // namespace quire::cli

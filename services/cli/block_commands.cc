// lookup, put, get, delete and inspect.
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "services/cli/commands.h"
#include "services/cli/files.h"
#include "services/cli/inspect.h"
#include "services/cli/session.h"

namespace quire::cli {

using nlohmann::ordered_json;
using store::BlockState;

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

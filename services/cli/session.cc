#include "services/cli/session.h"

#include <nlohmann/json.hpp>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "services/cli/layout_file.h"

namespace quire::cli {
namespace {}  // namespace

absl::StatusOr<std::unique_ptr<store::RemoteStore>> Connect(const Arguments& arguments) {
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel,
                         runtime::NewChannel(arguments.store, arguments.channel));
  store::RemoteStoreOptions options;
  options.call_timeout = options.stream_timeout = std::chrono::seconds(arguments.timeout_seconds);
  return std::make_unique<store::RemoteStore>(std::move(channel), options);
}

absl::StatusOr<std::unique_ptr<store::AdminClient>> ConnectAdmin(const Arguments& arguments) {
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel,
                         runtime::NewChannel(arguments.store, arguments.channel));
  return std::make_unique<store::AdminClient>(std::move(channel),
                                              std::chrono::seconds(arguments.timeout_seconds));
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

absl::StatusOr<store::Tier> ParseTier(const std::string& name) {
  using enum store::Tier;
  for (store::Tier tier : {kNone, kGpu, kHost, kDisk, kRedis}) {
    if (name == TierName(tier)) return tier;
  }
  return absl::InvalidArgumentError(absl::StrCat("tier ", name, ": none, gpu, host, disk or redis"));
}

void PrintJson(const nlohmann::ordered_json& value, std::ostream& out) { out << value.dump(2) << "\n"; }

std::string SizeText(double bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < std::size(kUnits); ++unit) bytes /= 1024;
  return absl::StrFormat(unit == 0 ? "%.0f %s" : "%.2f %s", bytes, kUnits[unit]);
}

}  // namespace quire::cli

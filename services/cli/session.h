// What commands share: the way to the store, and the forms of what is typed and printed.
#pragma once

#include <iosfwd>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/cli/commands.h"
#include "services/store/client/admin_client.h"
#include "services/store/client/remote_store.h"

namespace quire::cli {

inline constexpr int kDone = 0, kMissing = 2;  // exit codes of commands that worked

// A store and the namespace of one layout in it.
struct Session {
  std::unique_ptr<store::RemoteStore> store;
  store::Namespace ns;
};

absl::StatusOr<std::unique_ptr<store::RemoteStore>> Connect(const Arguments& arguments);
absl::StatusOr<std::unique_ptr<store::AdminClient>> ConnectAdmin(const Arguments& arguments);
// Of arguments.layout, which is registered.
absl::StatusOr<Session> Open(const Arguments& arguments);

absl::StatusOr<Digest> ParseKey(const std::string& hex);
absl::StatusOr<std::vector<Digest>> ParseKeys(const Arguments& arguments);

absl::StatusOr<store::Tier> ParseTier(const std::string& name);

void PrintJson(const nlohmann::ordered_json& value, std::ostream& out);
// 1.5 GiB and the like.
std::string SizeText(double bytes);

}  // namespace quire::cli

// The gateway's secret: what salts are derived with. Never logged, never in a message.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/base/digest.h"

namespace quire::gateway {

struct SecretOptions {
  std::string file;  // holds the secret; empty: <data_dir>/gateway.secret, or without a data folder a secret
                     // for this process only
  std::string data_dir;  // set: a missing file is created, readable by its owner alone
};

// A secret is 16 to 4096 bytes; white space at its end is not part of it. Several processes that start at
// once on one folder get the same secret.
absl::StatusOr<std::string> LoadSecret(const SecretOptions& options);

// What separates the key spaces of tenants, and within one tenant those of cache_salts (absent: empty), from
// each other.
Digest DeriveSalt(std::string_view secret, std::string_view tenant, std::string_view cache_salt);

}  // namespace quire::gateway

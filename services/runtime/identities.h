// Who may use a server, and as whom: the identities file.
//
// One JSON object a line; empty lines and lines that begin with # are skipped:
//   {"name": "team-a", "role": "client", "tenant": "a", "token_sha256": "9f86d0…"}
//   {"name": "worker", "role": "delegate", "certificate": "worker.example.org"}
//   {"name": "operator", "role": "admin", "token_sha256": ["60303a…", "fd61a0…"]}
// token_sha256: SHA-256 of a bearer token, 64 hex digits; the token itself stands nowhere. certificate: a
// subject alternative name (of a certificate without any: the common name). Either may be a list, so that the
// next token can be in place before the last one goes.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "core/base/digest.h"

namespace quire::runtime {

enum class Role {
  kClient,    // bound to one tenant
  kDelegate,  // names the tenant in each request
  kAdmin,     // runs the server; has no tenant
  kOpen,      // anyone, where a server has no identities: names any tenant and may do anything
};

struct Identity {
  std::string name;
  Role role = Role::kClient;
  std::string tenant;  // of a client
};
using IdentityPtr = std::shared_ptr<const Identity>;

// The tenant a request is for, given the one it names. PERMISSION_DENIED where the identity may not name it
// (or names none and must).
absl::StatusOr<std::string> TenantOf(const Identity& identity, const std::string& named);

// One version of the file. Immutable and thread-safe.
class Identities {
 public:
  static constexpr size_t kMaxFileBytes = 4 << 20;

  // INVALID_ARGUMENT naming the line and the field, never a value.
  static absl::StatusOr<Identities> Parse(std::string_view text);

  // Null if the token is none of these. Takes the same time for every wrong token: tokens are found by a
  // keyed hash that nobody outside can aim at.
  IdentityPtr ByToken(std::string_view token) const;
  // The identity of a verified certificate. Null if none of its names is one of these, or if they are of
  // different identities.
  IdentityPtr ByCertificate(std::span<const std::string> alternative_names,
                            const std::string& common_name) const;
  size_t size() const { return size_; }

 private:
  Identities();
  struct Token {
    Digest hash;
    IdentityPtr identity;
  };
  Digest Blinded(const Digest& hash) const { return HmacSha256(key_.AsString(), hash.AsString()); }
  absl::Status Add(std::string_view line);

  Digest key_;  // random
  absl::flat_hash_map<Digest, Token> tokens_;
  absl::flat_hash_map<std::string, IdentityPtr> certificates_;
  absl::flat_hash_map<std::string, bool> names_;
  size_t size_ = 0;
};

}  // namespace quire::runtime

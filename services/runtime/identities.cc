#include "services/runtime/identities.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace quire::runtime {
namespace {

using nlohmann::json;

constexpr size_t kMaxNameBytes = 256;  // of an identity, a tenant, a certificate
constexpr size_t kMaxTokenBytes = 4096;

absl::Status Wrong(std::string_view field, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(std::string(field), " ", std::string(what)));
}

absl::StatusOr<std::string> TextField(const json& line, const char* field) {
  auto it = line.find(field);
  if (it == line.end()) return std::string();
  if (!it->is_string()) return Wrong(field, "is no string");
  std::string text = it->get<std::string>();
  if (text.empty() || text.size() > kMaxNameBytes) {
    return Wrong(field, absl::StrCat("has ", text.size(), " bytes: 1…", kMaxNameBytes));
  }
  return text;
}

// A string, or a list of strings.
absl::StatusOr<std::vector<std::string>> ListField(const json& line, const char* field) {
  std::vector<std::string> out;
  auto it = line.find(field);
  if (it == line.end()) return out;
  const json list = it->is_array() ? *it : json::array({*it});
  for (const json& item : list) {
    if (!item.is_string()) return Wrong(field, "is no string, nor a list of them");
    out.push_back(item.get<std::string>());
    if (out.back().empty() || out.back().size() > kMaxNameBytes) {
      return Wrong(field, absl::StrCat("has ", out.back().size(), " bytes: 1…", kMaxNameBytes));
    }
  }
  return out;
}

absl::StatusOr<Identity> IdentityFrom(const json& line) {
  Identity identity;
  QUIRE_ASSIGN_OR_RETURN(identity.name, TextField(line, "name"));
  QUIRE_ASSIGN_OR_RETURN(identity.tenant, TextField(line, "tenant"));
  QUIRE_ASSIGN_OR_RETURN(std::string role, TextField(line, "role"));
  if (identity.name.empty()) return Wrong("name", "is missing");
  if (role == "client") {
    if (identity.tenant.empty()) return Wrong("tenant", "is missing: a client is bound to one");
    return identity;
  }
  if (!identity.tenant.empty()) return Wrong("tenant", "is for clients only");
  if (role != "delegate" && role != "admin") return Wrong("role", "is none of client, delegate, admin");
  identity.role = role == "admin" ? Role::kAdmin : Role::kDelegate;
  return identity;
}

}  // namespace

absl::StatusOr<std::string> TenantOf(const Identity& identity, const std::string& named) {
  switch (identity.role) {
    case Role::kOpen:
      return named;
    case Role::kClient:
      if (!named.empty() && named != identity.tenant)
        return absl::PermissionDeniedError("a client may name no tenant but its own");
      return identity.tenant;
    case Role::kDelegate:
      if (named.empty())
        return absl::PermissionDeniedError("a delegate must name the tenant in each request");
      return named;
    case Role::kAdmin:
      break;
  }
  return absl::PermissionDeniedError("an admin has no tenant");
}

Identities::Identities() { RAND_bytes(key_.bytes.data(), static_cast<int>(key_.bytes.size())); }

absl::StatusOr<Identities> Identities::Parse(std::string_view text) {
  Identities identities;
  for (size_t number = 1; !text.empty(); ++number) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    size_t first = line.find_first_not_of(" \t\r");
    if (first == std::string_view::npos || line[first] == '#') continue;
    if (absl::Status status = identities.Add(line); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("line ", number, ": ", std::string(status.message())));
    }
  }
  return identities;
}

absl::Status Identities::Add(std::string_view text) {
  const json line = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!line.is_object()) return absl::InvalidArgumentError("is no JSON object");
  for (const auto& [field, value] : line.items()) {
    if (field != "name" && field != "role" && field != "tenant" && field != "token_sha256" &&
        field != "certificate") {
      return absl::InvalidArgumentError("a field is none of name, role, tenant, token_sha256, certificate");
    }
  }
  QUIRE_ASSIGN_OR_RETURN(Identity parsed, IdentityFrom(line));
  auto identity = std::make_shared<const Identity>(std::move(parsed));
  QUIRE_ASSIGN_OR_RETURN(std::vector<std::string> hashes, ListField(line, "token_sha256"));
  QUIRE_ASSIGN_OR_RETURN(std::vector<std::string> certificates, ListField(line, "certificate"));
  if (hashes.empty() && certificates.empty()) {
    return absl::InvalidArgumentError("neither token_sha256 nor certificate: nobody could be this");
  }
  if (!names_.emplace(identity->name, true).second) return Wrong("name", "stands in another line too");
  for (const std::string& hex : hashes) {
    std::optional<Digest> hash = Digest::FromHex(hex);
    if (!hash) return Wrong("token_sha256", "is not 64 hex digits");
    if (!tokens_.emplace(Blinded(*hash), Token{*hash, identity}).second)
      return Wrong("token_sha256", "stands in the file twice");
  }
  for (const std::string& name : certificates) {
    if (!certificates_.emplace(name, identity).second)
      return Wrong("certificate", "stands in the file twice");
  }
  ++size_;
  return absl::OkStatus();
}

IdentityPtr Identities::ByToken(std::string_view token) const {
  if (token.empty() || token.size() > kMaxTokenBytes) return nullptr;
  Digest hash = Sha256().Update(token).Finish();
  auto it = tokens_.find(Blinded(hash));
  if (it == tokens_.end()) return nullptr;
  const Token& found = it->second;
  bool same = CRYPTO_memcmp(found.hash.bytes.data(), hash.bytes.data(), hash.bytes.size()) == 0;
  return same ? found.identity : nullptr;
}

IdentityPtr Identities::ByCertificate(std::span<const std::string> alternative_names,
                                      const std::string& common_name) const {
  auto find = [this](const std::string& name) {
    auto it = certificates_.find(name);
    return it == certificates_.end() ? nullptr : it->second;
  };
  if (alternative_names.empty()) return find(common_name);
  IdentityPtr found;
  for (const std::string& name : alternative_names) {
    IdentityPtr identity = find(name);
    if (identity == nullptr) continue;
    if (found != nullptr && found != identity) return nullptr;
    found = std::move(identity);
  }
  return found;
}

}  // namespace quire::runtime

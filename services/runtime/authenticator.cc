#include "services/runtime/authenticator.h"

#include <grpc/grpc_security_constants.h>
#include <spdlog/spdlog.h>

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/runtime/address.h"

namespace quire::runtime {
namespace {

int64_t SteadyMs() {
  using std::chrono::steady_clock;
  return std::chrono::duration_cast<std::chrono::milliseconds>(steady_clock::now().time_since_epoch())
      .count();
}

absl::StatusOr<std::shared_ptr<const Identities>> ReadIdentities(WatchedFile& file) {
  QUIRE_ASSIGN_OR_RETURN(std::string text, file.Read(Identities::kMaxFileBytes));
  absl::StatusOr<Identities> identities = Identities::Parse(text);
  if (!identities.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("identities file ", file.path(), ": ", std::string(identities.status().message())));
  }
  return std::make_shared<const Identities>(*std::move(identities));
}

// The token of an authorization header; none if there is no such header.
absl::StatusOr<std::optional<std::string_view>> BearerToken(const grpc::ServerContextBase& context) {
  auto [first, last] = context.client_metadata().equal_range("authorization");
  if (first == last) return std::nullopt;
  if (std::next(first) != last) return absl::UnauthenticatedError("more than one authorization is given");
  std::string_view value(first->second.data(), first->second.size());
  constexpr std::string_view kScheme = "bearer ";
  if (value.size() < kScheme.size() ||
      !absl::EqualsIgnoreCase({value.data(), kScheme.size()}, {kScheme.data(), kScheme.size()})) {
    return absl::UnauthenticatedError("the authorization is no bearer token");
  }
  return value.substr(kScheme.size());
}

std::vector<std::string> PeerProperties(const grpc::AuthContext& peer, const char* name) {
  std::vector<std::string> values;
  for (const grpc::string_ref& value : peer.FindPropertyValues(name))
    values.emplace_back(value.data(), value.size());
  return values;
}

}  // namespace

Authenticator::~Authenticator() = default;

absl::StatusOr<std::shared_ptr<Authenticator>> Authenticator::Open(const std::string& file,
                                                                   std::chrono::milliseconds refresh) {
  auto authenticator = std::shared_ptr<Authenticator>(new Authenticator());
  authenticator->file_ = std::make_unique<WatchedFile>(file);
  authenticator->refresh_ = refresh;
  QUIRE_ASSIGN_OR_RETURN(authenticator->identities_, ReadIdentities(*authenticator->file_));
  authenticator->next_look_ms_ = SteadyMs() + refresh.count();
  return authenticator;
}

std::shared_ptr<Authenticator> Authenticator::OpenMode() {
  return std::shared_ptr<Authenticator>(new Authenticator());
}

void Authenticator::Refresh() {
  int64_t now = SteadyMs(), due = next_look_ms_.load(std::memory_order_relaxed);
  if (now < due || !next_look_ms_.compare_exchange_strong(due, now + refresh_.count())) return;
  std::lock_guard reading(reading_);
  if (!file_->Changed()) return;
  absl::StatusOr<std::shared_ptr<const Identities>> read = ReadIdentities(*file_);
  if (!read.ok()) {
    spdlog::error("the identities read before stay in force: {}", std::string(read.status().message()));
    return;
  }
  std::lock_guard lock(mu_);
  identities_ = *std::move(read);
}

std::shared_ptr<const Identities> Authenticator::Current() {
  Refresh();
  std::shared_lock lock(mu_);
  return identities_;
}

absl::StatusOr<IdentityPtr> Authenticator::Identify(const grpc::ServerContextBase& context) {
  static const IdentityPtr kAnyone = std::make_shared<const Identity>(Identity{"", Role::kOpen, ""});
  if (open_mode()) return kAnyone;
  std::shared_ptr<const Identities> identities = Current();
  QUIRE_ASSIGN_OR_RETURN(std::optional<std::string_view> token, BearerToken(context));
  if (token) {
    IdentityPtr identity = identities->ByToken(*token);
    if (identity == nullptr) return absl::UnauthenticatedError("the bearer token is not known here");
    return identity;
  }
  std::shared_ptr<const grpc::AuthContext> peer = context.auth_context();
  if (peer == nullptr || !peer->IsPeerAuthenticated()) {
    return absl::UnauthenticatedError("a bearer token or a client certificate is needed");
  }
  std::vector<std::string> common = PeerProperties(*peer, GRPC_X509_CN_PROPERTY_NAME);
  IdentityPtr identity = identities->ByCertificate(PeerProperties(*peer, GRPC_X509_SAN_PROPERTY_NAME),
                                                   common.empty() ? "" : common.front());
  if (identity == nullptr) return absl::UnauthenticatedError("the client certificate is not known here");
  return identity;
}

absl::StatusOr<std::shared_ptr<Authenticator>> OpenAuthenticator(const AccessOptions& options,
                                                                 const std::string& listen) {
  if (!options.identities.empty()) return Authenticator::Open(options.identities);
  if (!options.insecure && !IsLocalAddress(listen)) {
    return absl::InvalidArgumentError(absl::StrCat(
        listen,
        " can be reached from other machines, and without identities anyone may name any tenant: "
        "give --identities FILE, or --insecure"));
  }
  return Authenticator::OpenMode();
}

}  // namespace quire::runtime

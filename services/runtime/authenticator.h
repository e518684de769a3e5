// Who calls: the identity behind a call, from its bearer token or its client certificate.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>

#include "absl/status/statusor.h"
#include "services/runtime/identities.h"
#include "services/runtime/watched_file.h"

namespace quire::runtime {

// Thread-safe.
class Authenticator {
 public:
  // Reads the identities file (see identities.h), and again whenever it has changed, looked at no more often
  // than every `refresh` and only when somebody calls. A file that is malformed or gone later is logged, and
  // what was read before stays in force. An error now is returned.
  static absl::StatusOr<std::shared_ptr<Authenticator>> Open(
      const std::string& file, std::chrono::milliseconds refresh = std::chrono::seconds(1));
  // Without identities everyone may name any tenant and do anything.
  static std::shared_ptr<Authenticator> OpenMode();
  ~Authenticator();

  bool open_mode() const { return file_ == nullptr; }
  // A call with `authorization: Bearer TOKEN` is who its token says, whatever its certificate; without, who
  // the verified client certificate says. UNAUTHENTICATED for anything else.
  absl::StatusOr<IdentityPtr> Identify(const grpc::ServerContextBase& context);

 private:
  Authenticator() = default;
  std::shared_ptr<const Identities> Current();
  void Refresh();

  std::chrono::milliseconds refresh_{0};
  std::atomic<int64_t> next_look_ms_{0};
  std::mutex reading_;                 // guards file_'s state; taken before mu_
  std::unique_ptr<WatchedFile> file_;  // null: open mode
  mutable std::shared_mutex mu_;       // guards identities_
  std::shared_ptr<const Identities> identities_;
};

// What a server's flags --identities and --insecure say. INVALID_ARGUMENT where there are no identities and
// `listen` can be reached from other machines, unless `insecure`.
struct AccessOptions {
  std::string identities;  // a file; empty: open mode
  bool insecure = false;
};
absl::StatusOr<std::shared_ptr<Authenticator>> OpenAuthenticator(const AccessOptions& options,
                                                                 const std::string& listen);

}  // namespace quire::runtime

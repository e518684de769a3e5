// A client's bearer token, from a file, in the metadata of each of its calls.
#pragma once

#include <grpcpp/support/client_interceptor.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"
#include "services/runtime/watched_file.h"

namespace quire::runtime {

// Thread-safe.
class BearerToken {
 public:
  // The file holds the token and nothing else but white space around it. INVALID_ARGUMENT if it is empty or
  // has characters that a header cannot carry. A file that changes is read again (looked at once a second at
  // most); one that turns bad leaves the last good token in use.
  static absl::StatusOr<std::shared_ptr<BearerToken>> FromFile(const std::string& path);
  std::string Header();  // "Bearer …"

 private:
  explicit BearerToken(const std::string& path) : file_(path) {}
  absl::Status Read();  // REQUIRES: mu_ is held

  std::mutex mu_;  // guards all below
  WatchedFile file_;
  std::string header_;
  std::chrono::steady_clock::time_point next_look_;
};

// Adds `authorization` to every call of a channel.
std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface> NewBearerInterceptor(
    std::shared_ptr<BearerToken> token);

}  // namespace quire::runtime

// Running a store from elsewhere: StoreAdmin's calls.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "services/store/api/kv_store.h"

namespace quire::store {

struct ServerInfo {
  std::string version;
  std::chrono::milliseconds uptime{0};
};
struct VerifyProgress {
  uint64_t blocks = 0, bytes = 0, failures = 0;
  double progress = 0;  // 0…1
};

// Thread-safe. Nothing is tried again. `timeout` is of each call but Verify.
class AdminClient {
 public:
  AdminClient(std::shared_ptr<grpc::Channel> channel, std::chrono::milliseconds timeout);
  ~AdminClient();

  absl::StatusOr<StoreStats> Stats(ServerInfo* info = nullptr);
  // Stored bytes that a tenant may hold; 0: no limit.
  absl::StatusOr<uint64_t> Quota(const std::string& tenant);
  absl::StatusOr<uint64_t> SetQuota(const std::string& tenant, uint64_t bytes);
  // Returns when the store is drained, or `deadline` is over.
  absl::Status Drain(std::chrono::milliseconds deadline);
  // How many blocks went.
  absl::StatusOr<uint64_t> DeleteTenant(const std::string& tenant);
  // Checks everything in a tier (kNone: in all) at a rate (0: as fast as it goes); `on_progress` false: stop.
  absl::StatusOr<VerifyProgress> Verify(Tier tier, uint64_t bytes_per_second,
                                        const std::function<bool(const VerifyProgress&)>& on_progress);
  absl::Status InjectFault(const std::string& point, uint32_t count, uint64_t parameter = 0);

 private:
  struct Stubs;
  template <typename Response, typename Method, typename Request>
  absl::StatusOr<Response> Ask(Method method, const Request& request, std::chrono::milliseconds more = {});

  const std::chrono::milliseconds timeout_;
  std::unique_ptr<Stubs> stubs_;
};

}  // namespace quire::store

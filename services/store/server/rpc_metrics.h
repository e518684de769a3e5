// Count, errors and latency of each method of a gRPC service.
#pragma once

#include <prometheus/registry.h>

#include <chrono>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "grpcpp/support/status.h"
#include "services/runtime/metrics.h"

namespace quire::store {

// Immutable after construction but for the metrics themselves; thread-safe.
class RpcMetrics {
 public:
  explicit RpcMetrics(prometheus::Registry& registry);

  // Times one call.
  class Call {
   public:
    // Counts the call and turns its end into what gRPC sends.
    grpc::Status Done(const absl::Status& status);

   private:
    friend class RpcMetrics;
    struct Method {
      prometheus::Counter *calls, *errors;
      prometheus::Histogram* seconds;
    };
    explicit Call(const Method& method) : method_(method) {}
    const Method& method_;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  };
  // REQUIRES: `method` is one of those in rpc_metrics.cc.
  Call Start(const char* method) const { return Call(methods_.at(method)); }

 private:
  absl::flat_hash_map<std::string, Call::Method> methods_;
};

}  // namespace quire::store

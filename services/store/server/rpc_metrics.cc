#include "services/store/server/rpc_metrics.h"

#include "services/runtime/status.h"

namespace quire::store {
namespace {

constexpr const char* kMethods[] = {
    "RegisterLayout", "Lookup", "Put",         "Get",   "Delete",      "Pin",      "Unpin",        "Touch",
    "Prefetch",       "Watch",  "AttachArena", "Drain", "GetQuota",    "SetQuota", "DeleteTenant", "Verify",
    "Encode",         "Decode", "Describe",    "Stats", "InjectFault", "other"};
// Seconds: a lookup takes tens of microseconds, a stream up to minutes.
const prometheus::Histogram::BucketBoundaries kBuckets = {
    50e-6, 100e-6, 200e-6, 400e-6, 1e-3, 2e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1, 2.5, 10, 60};

}  // namespace

RpcMetrics::RpcMetrics(prometheus::Registry& registry) {
  for (const char* name : kMethods) {
    prometheus::Labels labels = {{"method", name}};
    methods_[name] = {
        &runtime::AddCounter(registry, "quire_store_rpcs_total", "Calls ended, by method", labels),
        &runtime::AddCounter(registry, "quire_store_rpc_errors_total", "Calls ended with an error, by method",
                             labels),
        &runtime::AddHistogram(registry, "quire_store_rpc_seconds", "Duration of calls, by method", kBuckets,
                               labels),
    };
  }
}

grpc::Status RpcMetrics::Call::Done(const absl::Status& status) {
  std::chrono::duration<double> took = std::chrono::steady_clock::now() - start_;
  method_.calls->Increment();
  if (!status.ok()) method_.errors->Increment();
  method_.seconds->Observe(took.count());
  return runtime::ToGrpc(status);
}

}  // namespace quire::store

// What the gateway counts. Everything is registered at start, so that a scrape shows zeros before the first
// request.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace quire::gateway {

enum class Route { kChat, kCompletions, kModels, kModel, kHealth, kMetrics, kOther };
inline constexpr size_t kRoutes = 7;
std::string_view RouteName(Route route);

// Status 499: the client closed the connection before its answer was finished (nginx's number).
inline constexpr int kClientGone = 499;

// Thread-safe.
class Metrics {
 public:
  explicit Metrics(std::shared_ptr<prometheus::Registry> registry);

  prometheus::Registry& registry() { return *registry_; }

  // A request is over: how it was answered and how long it took, from its first byte to the answer's last.
  void Request(Route route, int status, std::chrono::nanoseconds took);
  void UpstreamError(absl::StatusCode code);
  void WorkerReady(const std::string& worker, bool ready);

 private:
  std::shared_ptr<prometheus::Registry> registry_;
  std::array<prometheus::Histogram*, kRoutes> request_seconds_;

 public:
  // References into the registry.
  prometheus::Histogram& first_token_seconds;
  prometheus::Histogram& inter_token_seconds;
  prometheus::Counter& prompt_tokens;
  prometheus::Counter& completion_tokens;
  prometheus::Counter& cached_tokens;
  prometheus::Counter& stream_errors;
  prometheus::Gauge& active_requests;  // at a worker
  prometheus::Gauge& active_streams;   // of these, streamed to the client
};

}  // namespace quire::gateway

#include "gateway/server/metrics.h"

#include "services/runtime/metrics.h"

namespace quire::gateway {
namespace {

using runtime::AddCounter;
using runtime::AddGauge;
using runtime::AddHistogram;

constexpr char kRequests[] = "quire_gateway_requests_total";
constexpr char kRequestsHelp[] =
    "HTTP requests by route and status; 499 is a client that left before its answer was finished";
constexpr char kUpstream[] = "quire_gateway_upstream_errors_total";
constexpr char kUpstreamHelp[] = "Generations that a worker ended with an error, by gRPC code";
constexpr char kReady[] = "quire_gateway_worker_ready";
constexpr char kReadyHelp[] = "1 while the worker answers and is given requests";

// Seconds.
const prometheus::Histogram::BucketBoundaries kLong = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300};
const prometheus::Histogram::BucketBoundaries kShort = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05,
                                                        0.075,  0.1,   0.15,   0.25,  0.5,  1,    2.5};

}  // namespace

std::string_view RouteName(Route route) {
  switch (route) {
    case Route::kChat:
      return "/v1/chat/completions";
    case Route::kCompletions:
      return "/v1/completions";
    case Route::kModels:
      return "/v1/models";
    case Route::kModel:
      return "/v1/models/{id}";
    case Route::kHealth:
      return "/health";
    case Route::kMetrics:
      return "/metrics";
    case Route::kOther:
      break;
  }
  return "other";
}

Metrics::Metrics(std::shared_ptr<prometheus::Registry> registry)
    : registry_(std::move(registry)),
      first_token_seconds(AddHistogram(*registry_, "quire_gateway_time_to_first_token_seconds",
                                       "From a request's first byte to the first token from the worker",
                                       kLong)),
      inter_token_seconds(AddHistogram(*registry_, "quire_gateway_inter_token_seconds",
                                       "Between two tokens of one answer", kShort)),
      prompt_tokens(
          AddCounter(*registry_, "quire_gateway_prompt_tokens_total", "Prompt tokens of finished answers")),
      completion_tokens(AddCounter(*registry_, "quire_gateway_completion_tokens_total", "Tokens generated")),
      cached_tokens(AddCounter(*registry_, "quire_gateway_cached_tokens_total",
                               "Prompt tokens whose KV came from the store instead of being computed")),
      stream_errors(AddCounter(*registry_, "quire_gateway_stream_errors_total",
                               "Streamed answers that ended with an error event")),
      active_requests(AddGauge(*registry_, "quire_gateway_active_requests", "Requests at a worker now")),
      active_streams(
          AddGauge(*registry_, "quire_gateway_active_streams", "Answers being streamed to clients now")) {
  for (size_t i = 0; i < kRoutes; ++i) {
    const std::string route(RouteName(static_cast<Route>(i)));
    request_seconds_[i] =
        &AddHistogram(*registry_, "quire_gateway_request_seconds",
                      "From a request's first byte to its answer's last", kLong, {{"route", route}});
    for (const char* status : {"200", "400", "404", "405", "413", "429", "499", "500", "503"}) {
      AddCounter(*registry_, kRequests, kRequestsHelp, {{"route", route}, {"status", status}});
    }
  }
  for (auto code : {absl::StatusCode::kInvalidArgument, absl::StatusCode::kResourceExhausted,
                    absl::StatusCode::kUnavailable, absl::StatusCode::kInternal}) {
    AddCounter(*registry_, kUpstream, kUpstreamHelp, {{"code", absl::StatusCodeToString(code)}});
  }
}

void Metrics::Request(Route route, int status, std::chrono::nanoseconds took) {
  AddCounter(*registry_, kRequests, kRequestsHelp,
             {{"route", std::string(RouteName(route))}, {"status", std::to_string(status)}})
      .Increment();
  request_seconds_[static_cast<size_t>(route)]->Observe(std::chrono::duration<double>(took).count());
}

void Metrics::UpstreamError(absl::StatusCode code) {
  AddCounter(*registry_, kUpstream, kUpstreamHelp, {{"code", absl::StatusCodeToString(code)}}).Increment();
}

void Metrics::WorkerReady(const std::string& worker, bool ready) {
  AddGauge(*registry_, kReady, kReadyHelp, {{"worker", worker}}).Set(ready ? 1 : 0);
}

}  // namespace quire::gateway

#include "services/worker/scheduler/worker_metrics.h"

#include <string>

#include "services/runtime/metrics.h"

namespace quire::worker {
namespace {

using runtime::AddCounter;
using runtime::AddGauge;
using runtime::AddHistogram;

const prometheus::Histogram::BucketBoundaries kLatency = {.001, .0025, .005, .01, .025, .05, .1, .25,
                                                          .5,   1,     2.5,  5,   10,   30,  60};

std::array<prometheus::Counter*, 5> RequestCounters(prometheus::Registry& registry) {
  std::array<prometheus::Counter*, 5> out{};
  const char* names[] = {"rejected", "stop", "length", "aborted", "failed"};
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = &AddCounter(registry, "quire_worker_requests_total",
                         "Requests by how they ended; rejected: the queue was full", {{"finish", names[i]}});
  }
  return out;
}

std::array<prometheus::Counter*, kStoreOps> FailureCounters(prometheus::Registry& registry) {
  std::array<prometheus::Counter*, kStoreOps> out{};
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = &AddCounter(registry, "quire_worker_store_failures_total",
                         "Calls to the store that failed, objects that were not what was asked for, and "
                         "requests that stopped waiting",
                         {{"operation", std::string(Name(static_cast<StoreOp>(i)))}});
  }
  return out;
}

}  // namespace

std::string_view Name(StoreOp op) {
  constexpr std::string_view kNames[] = {"register", "lookup", "get", "put", "delete", "restore", "timeout"};
  return kNames[static_cast<size_t>(op)];
}

WorkerMetrics::WorkerMetrics(prometheus::Registry& r)
    : requests(RequestCounters(r)),
      prompt_tokens(
          AddCounter(r, "quire_worker_prompt_tokens_total", "Tokens of prompts of admitted requests")),
      completion_tokens(AddCounter(r, "quire_worker_completion_tokens_total", "Tokens sampled")),
      cached_tokens(AddCounter(r, "quire_worker_cached_tokens_total",
                               "Prompt tokens restored from the store instead of computed")),
      ttft_seconds(AddHistogram(r, "quire_worker_ttft_seconds", "From a request's arrival to its first token",
                                kLatency)),
      inter_token_seconds(
          AddHistogram(r, "quire_worker_inter_token_seconds", "Between two tokens of a request", kLatency)),
      running(AddGauge(r, "quire_worker_running", "Requests admitted and not finished")),
      waiting(AddGauge(r, "quire_worker_waiting", "Requests in the queue")),
      kv_bytes(
          AddGauge(r, "quire_worker_kv_bytes", "Bytes of KV that running sequences hold, codes and raw")),
      lookup_hit_tokens(AddCounter(r, "quire_worker_lookup_hit_tokens_total",
                                   "Prompt tokens in blocks that a lookup found")),
      lookup_miss_tokens(AddCounter(r, "quire_worker_lookup_miss_tokens_total",
                                    "Prompt tokens in whole blocks that a lookup did not find")),
      restore_seconds(AddHistogram(r, "quire_worker_restore_seconds",
                                   "Looking up, fetching and checking a prefix, where any was restored",
                                   kLatency)),
      offloaded_blocks(
          AddCounter(r, "quire_worker_offloaded_blocks_total", "Blocks sent to the store and committed")),
      offloaded_bytes(AddCounter(r, "quire_worker_offloaded_bytes_total",
                                 "Bytes of objects sent to the store and committed")),
      offload_present_blocks(AddCounter(r, "quire_worker_offload_present_blocks_total",
                                        "Blocks the store had when they were offered")),
      offload_dropped_blocks(
          AddCounter(r, "quire_worker_offload_dropped_blocks_total",
                     "Blocks that never reached the store: queue full, store down or refused")),
      store_failures(FailureCounters(r)),
      store_connected(AddGauge(r, "quire_worker_store_connected", "1 while the store is usable")) {}

}  // namespace quire::worker

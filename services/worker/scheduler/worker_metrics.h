// What a worker counts. All families and labels exist from the start.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>
#include <cstdint>
#include <string_view>

#include "services/worker/scheduler/generation.h"

namespace quire::worker {

// What the worker was doing with the store when something failed.
enum class StoreOp : uint8_t { kRegister, kLookup, kGet, kPut, kDelete, kRestore, kTimeout };
inline constexpr size_t kStoreOps = 7;
std::string_view Name(StoreOp op);

// Thread-safe. The registry must outlive it.
struct WorkerMetrics {
  explicit WorkerMetrics(prometheus::Registry& registry);

  std::array<prometheus::Counter*, 5> requests;  // by Finish; kNone stands for those refused at the queue
  prometheus::Counter &prompt_tokens, &completion_tokens, &cached_tokens;
  prometheus::Histogram &ttft_seconds, &inter_token_seconds;
  prometheus::Gauge &running, &waiting, &kv_bytes;
  // The store as the worker sees it.
  prometheus::Counter &lookup_hit_tokens, &lookup_miss_tokens;
  prometheus::Histogram& restore_seconds;
  prometheus::Counter &offloaded_blocks, &offloaded_bytes, &offload_present_blocks, &offload_dropped_blocks;
  std::array<prometheus::Counter*, kStoreOps> store_failures;
  prometheus::Gauge& store_connected;
};

}  // namespace quire::worker

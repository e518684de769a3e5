// What a store counts, for Stats and for /metrics alike.
#pragma once

#include <prometheus/registry.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

#include "services/runtime/metrics.h"
#include "services/store/engine/index.h"

namespace quire::store {

// Thread-safe.
class StoreCounters {
 public:
  // Registers all families in `registry`.
  explicit StoreCounters(prometheus::Registry& registry);

  void Lookup(uint64_t hit_blocks, uint64_t miss_blocks);
  void Stored(const StoredObject& object);
  enum class Gone { kEvicted, kDeleted, kCorrupt };
  void Removed(const StoredObject& object, Gone why);
  void SessionOpened();
  void SessionClosed();

  std::atomic<uint64_t> lookups{0}, hit_tokens{0}, miss_tokens{0};
  std::atomic<uint64_t> blocks_stored{0}, blocks_evicted{0}, blocks_deleted{0}, checksum_failures{0};
  std::atomic<uint64_t> blocks{0}, stored_bytes{0}, raw_bytes{0}, bf16_bytes{0};  // held now
  std::atomic<uint64_t> put_sessions{0};                                          // open now

 private:
  void PublishHeld();

  prometheus::Counter &lookups_, &hit_tokens_, &miss_tokens_, &stored_, &evicted_, &deleted_,
      &checksum_failures_;
  prometheus::Gauge &blocks_gauge_, &stored_bytes_gauge_, &raw_bytes_gauge_, &ratio_gauge_, &sessions_gauge_;
  std::mutex gauges_mu_;  // so that the gauges' last values are the latest ones
};

}  // namespace quire::store

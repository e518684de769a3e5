#include "services/store/engine/counters.h"

#include <mutex>

namespace quire::store {

using runtime::AddCounter;
using runtime::AddGauge;

StoreCounters::StoreCounters(prometheus::Registry& r)
    : lookups_(AddCounter(r, "quire_store_lookups_total", "Lookup calls")),
      hit_tokens_(
          AddCounter(r, "quire_store_hit_tokens_total", "Tokens of looked-up blocks that were stored")),
      miss_tokens_(
          AddCounter(r, "quire_store_miss_tokens_total", "Tokens of looked-up blocks that were not stored")),
      stored_(AddCounter(r, "quire_store_blocks_stored_total", "Objects committed")),
      evicted_(AddCounter(r, "quire_store_blocks_evicted_total", "Objects evicted for room")),
      deleted_(AddCounter(r, "quire_store_blocks_deleted_total", "Objects removed on request")),
      checksum_failures_(AddCounter(r, "quire_store_checksum_failures_total",
                                    "Objects dropped because stored bytes were wrong")),
      blocks_gauge_(AddGauge(r, "quire_store_blocks", "Objects held", {{"tier", "host"}})),
      stored_bytes_gauge_(AddGauge(r, "quire_store_stored_bytes", "Bytes of the objects held, as charged",
                                   {{"tier", "host"}})),
      raw_bytes_gauge_(AddGauge(r, "quire_store_raw_bytes", "The same blocks as bf16", {{"tier", "host"}})),
      ratio_gauge_(
          AddGauge(r, "quire_store_compression_ratio", "raw_bytes / stored_bytes; 0 while nothing is held")),
      sessions_gauge_(AddGauge(r, "quire_store_put_sessions", "Put sessions open")) {}

void StoreCounters::Lookup(uint64_t hit_blocks, uint64_t miss_blocks) {
  lookups.fetch_add(1, std::memory_order_relaxed);
  hit_tokens.fetch_add(hit_blocks * kBlockTokens, std::memory_order_relaxed);
  miss_tokens.fetch_add(miss_blocks * kBlockTokens, std::memory_order_relaxed);
  lookups_.Increment();
  hit_tokens_.Increment(static_cast<double>(hit_blocks * kBlockTokens));
  miss_tokens_.Increment(static_cast<double>(miss_blocks * kBlockTokens));
}

void StoreCounters::Stored(const StoredObject& object) {
  blocks_stored.fetch_add(1, std::memory_order_relaxed);
  stored_.Increment();
  blocks.fetch_add(1, std::memory_order_relaxed);
  stored_bytes.fetch_add(object.room->charged(), std::memory_order_relaxed);
  raw_bytes.fetch_add(object.raw_bytes, std::memory_order_relaxed);
  bf16_bytes.fetch_add(object.bf16_bytes, std::memory_order_relaxed);
  PublishHeld();
}

void StoreCounters::Removed(const StoredObject& object, Gone why) {
  switch (why) {
    case Gone::kEvicted:
      blocks_evicted.fetch_add(1, std::memory_order_relaxed);
      evicted_.Increment();
      break;
    case Gone::kDeleted:
      blocks_deleted.fetch_add(1, std::memory_order_relaxed);
      deleted_.Increment();
      break;
    case Gone::kCorrupt:
      checksum_failures.fetch_add(1, std::memory_order_relaxed);
      checksum_failures_.Increment();
      break;
  }
  blocks.fetch_sub(1, std::memory_order_relaxed);
  stored_bytes.fetch_sub(object.room->charged(), std::memory_order_relaxed);
  raw_bytes.fetch_sub(object.raw_bytes, std::memory_order_relaxed);
  bf16_bytes.fetch_sub(object.bf16_bytes, std::memory_order_relaxed);
  PublishHeld();
}

void StoreCounters::PublishHeld() {
  std::lock_guard lock(gauges_mu_);
  auto stored = static_cast<double>(stored_bytes.load(std::memory_order_relaxed));
  auto raw = static_cast<double>(bf16_bytes.load(std::memory_order_relaxed));
  blocks_gauge_.Set(static_cast<double>(blocks.load(std::memory_order_relaxed)));
  stored_bytes_gauge_.Set(stored);
  raw_bytes_gauge_.Set(raw);
  ratio_gauge_.Set(stored > 0 ? raw / stored : 0);
}

void StoreCounters::SessionOpened() {
  put_sessions.fetch_add(1, std::memory_order_relaxed);
  sessions_gauge_.Increment();
}

void StoreCounters::SessionClosed() {
  put_sessions.fetch_sub(1, std::memory_order_relaxed);
  sessions_gauge_.Decrement();
}

}  // namespace quire::store

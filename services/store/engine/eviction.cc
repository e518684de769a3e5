#include "services/store/engine/eviction.h"

#include <mutex>

namespace quire::store {

void LruPolicy::Queue(EvictionEntry* entry) {
  // Ticks are handed out once, so no two entries share one.
  entry->queued = entry->last_used.load(std::memory_order_relaxed);
  queue_.emplace(entry->queued, entry);
}

void LruPolicy::Forget(EvictionEntry* entry) {
  if (entry->queued != 0) queue_.erase(entry->queued);
  if (entry->parked_until != 0) parked_.erase({entry->parked_until, entry});
  entry->queued = 0;
  entry->parked_until = 0;
}

void LruPolicy::Add(EvictionEntry* entry) {
  std::lock_guard lock(mu_);
  if (entry->queued == 0 && entry->parked_until == 0) Queue(entry);
}

void LruPolicy::Remove(EvictionEntry* entry) {
  std::lock_guard lock(mu_);
  Forget(entry);
}

void LruPolicy::Park(EvictionEntry* entry, int64_t until_ms) {
  std::lock_guard lock(mu_);
  Forget(entry);
  entry->parked_until = until_ms;
  parked_.emplace(until_ms, entry);
}

std::optional<BlockName> LruPolicy::PopVictim(uint64_t before, int64_t now_ms) {
  std::lock_guard lock(mu_);
  while (!parked_.empty() && parked_.begin()->first <= now_ms) {
    EvictionEntry* entry = parked_.begin()->second;
    Forget(entry);
    Queue(entry);
  }
  while (!queue_.empty()) {
    auto [tick, entry] = *queue_.begin();
    if (tick >= before) return std::nullopt;
    Forget(entry);
    if (entry->last_used.load(std::memory_order_relaxed) == tick) return entry->name;
    Queue(entry);  // used since it was queued
  }
  return std::nullopt;
}

}  // namespace quire::store

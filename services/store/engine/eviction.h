// Which block goes first when room is needed: LRU, S3-FIFO and LFU.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>
#include <variant>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/status/statusor.h"
#include "core/base/digest.h"

namespace quire::store {

// A block within a store: tenants and layouts are numbered, so that names of different tenants never meet.
struct BlockName {
  uint32_t tenant = 0;
  uint32_t layout = 0;
  Digest key;
  friend bool operator==(const BlockName&, const BlockName&) = default;
  friend auto operator<=>(const BlockName&, const BlockName&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const BlockName& n) {
    return H::combine(std::move(h), n.tenant, n.layout, n.key);
  }
};

// The order of uses, across all tiers and tenants of a store. Thread-safe.
class UseClock {
 public:
  // `count` consecutive ticks, none handed out before; returns the first.
  uint64_t Ticks(uint64_t count) { return next_.fetch_add(count, std::memory_order_relaxed); }
  uint64_t next() const { return next_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> next_{1};
};

// What a block's readers leave on it. One atomic store or two a use.
struct Usage {
  std::atomic<uint64_t> last_used{0};  // a tick; larger is later
  std::atomic<uint32_t> uses{0};       // lookups that found it
  void Touch(uint64_t tick) {
    uint64_t seen = last_used.load(std::memory_order_relaxed);
    while (seen < tick && !last_used.compare_exchange_weak(seen, tick, std::memory_order_relaxed)) {
    }
  }
  void CountUse() { uses.fetch_add(1, std::memory_order_relaxed); }
};

// What a policy keeps of a block. Owned by the block, which outlives its place in a policy.
struct EvictionEntry {
  const BlockName* name = nullptr;
  const Usage* usage = nullptr;
  int32_t priority = 0;  // lower goes first, whatever the policy says within one priority
  // Owned by the policy, under its lock:
  using Order = std::tuple<int32_t, uint64_t, uint64_t>;
  std::optional<Order> queued;  // where it waits to be evicted
  uint8_t queue = 0;            // which of the policy's queues
  uint32_t credited = 0;        // uses already taken account of
  int64_t parked_until = 0;     // ms; 0: it is not parked
};

// Entries are borrowed: Remove one before it dies. Thread-safe; takes no other lock.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  void Add(EvictionEntry* entry);                     // a candidate from now on; no change if it is one
  void Remove(EvictionEntry* entry);                  // no candidate any more; no change if it is none
  void Park(EvictionEntry* entry, int64_t until_ms);  // a candidate again at that time
  // Takes the next victim off the candidates if it was last used before tick `before`. The caller checks
  // whether it may go, and otherwise adds or parks it again.
  std::optional<BlockName> PopVictim(uint64_t before, int64_t now_ms);

 protected:
  // All REQUIRE that the lock is held. Enqueue sets entry->queued, Dequeue clears it; Next dequeues what it
  // returns.
  virtual void Enqueue(EvictionEntry* entry) = 0;
  virtual void Dequeue(EvictionEntry* entry) = 0;
  virtual EvictionEntry* Next(uint64_t before) = 0;

 private:
  void Forget(EvictionEntry* entry);

  std::mutex mu_;  // guards all of a policy's state
  absl::btree_set<std::pair<int64_t, EvictionEntry*>> parked_;
};

enum class PolicyKind : uint8_t { kLru, kS3Fifo, kLfu };
// "lru", "s3fifo", "lfu"; INVALID_ARGUMENT naming them.
absl::StatusOr<PolicyKind> ParsePolicyKind(std::string_view name);
std::unique_ptr<EvictionPolicy> NewEvictionPolicy(PolicyKind kind);

}  // namespace quire::store

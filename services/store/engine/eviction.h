// Which block goes first when room is needed.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "core/base/digest.h"

namespace quire::store {

// A block within a store: tenants and layouts are numbered, so that names of different tenants never meet.
struct BlockName {
  uint32_t tenant = 0;
  uint32_t layout = 0;
  Digest key;
  friend bool operator==(const BlockName&, const BlockName&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const BlockName& n) {
    return H::combine(std::move(h), n.tenant, n.layout, n.key);
  }
};

// What a policy keeps in each block.
struct EvictionEntry {
  BlockName name;
  std::atomic<uint64_t> last_used{0};  // a tick; larger is later
  // Owned by the policy, under its lock:
  uint64_t queued = 0;       // the tick under which it waits to be evicted; 0: it does not
  int64_t parked_until = 0;  // ms; 0: it is not parked
};

// Candidates are blocks without stored children. Entries are borrowed: Remove one before it dies.
// Thread-safe; takes no other lock.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  virtual void Add(EvictionEntry* entry) = 0;     // a candidate from now on; no change if it is one
  virtual void Remove(EvictionEntry* entry) = 0;  // no candidate any more; no change if it is none
  virtual void Park(EvictionEntry* entry, int64_t until_ms) = 0;  // a candidate again at that time
  // Takes the next victim off the candidates if it was last used before tick `before`. The caller checks
  // whether it may go, and otherwise adds or parks it again.
  virtual std::optional<BlockName> PopVictim(uint64_t before, int64_t now_ms) = 0;

  // `count` consecutive ticks, none handed out before; returns the first.
  uint64_t Ticks(uint64_t count) { return next_tick_.fetch_add(count, std::memory_order_relaxed); }
  static void Touch(EvictionEntry* entry, uint64_t tick) {
    uint64_t seen = entry->last_used.load(std::memory_order_relaxed);
    while (seen < tick && !entry->last_used.compare_exchange_weak(seen, tick, std::memory_order_relaxed)) {
    }
  }

 private:
  std::atomic<uint64_t> next_tick_{1};
};

// Least recently used first, exactly. A touch is one atomic store: candidates wait under the tick they were
// queued with, and one that was used since is moved when its turn comes, which each touch causes at most
// once.
class LruPolicy : public EvictionPolicy {
 public:
  void Add(EvictionEntry* entry) override;
  void Remove(EvictionEntry* entry) override;
  void Park(EvictionEntry* entry, int64_t until_ms) override;
  std::optional<BlockName> PopVictim(uint64_t before, int64_t now_ms) override;

 private:
  // REQUIRE: mu_ is held.
  void Queue(EvictionEntry* entry);
  void Forget(EvictionEntry* entry);

  std::mutex mu_;  // guards all below
  absl::btree_map<uint64_t, EvictionEntry*> queue_;
  absl::btree_set<std::pair<int64_t, EvictionEntry*>> parked_;
};

}  // namespace quire::store

// What happened to each tenant's blocks, in order, for as long as there is room: what Watch reads.
//
// Every tenant has events and numbers of its own, counted from 1, so that what one sees, or can no longer
// see, tells nothing of the others. Events are kept in chunks; a tenant that has its share of them, or finds
// all taken, writes over its own oldest chunk. Readers have no place here: each reads from the number it has
// come to, and one that is too slow finds its events gone (OUT_OF_RANGE) instead of holding memory.
//
// Lock order: a shard of the index → the log. Append takes only locks of its own, which are held for a few
// instructions and never while anything else is called, so that it may be called under any lock of the
// engine; called under the shard's lock that made the change, it puts a block's events in the order they
// happened.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "core/base/digest.h"
#include "services/store/api/kv_store.h"

namespace quire::store {

struct StoreEvent {
  enum class Kind : uint8_t { kStored = 0, kDegraded = 1, kMoved = 2, kRemoved = 3 };
  Digest key;
  uint32_t layout = 0;  // its number in the LayoutRegistry
  Kind kind = Kind::kStored;
  Tier tier = Tier::kNone;  // stored, degraded: where; moved: where to; removed: where from
  uint8_t levels = 0;       // that are there afterwards
};

// Thread-safe.
class EventLog {
 public:
  struct Options {
    size_t events_per_tenant = 16384;
    // Of all tenants together; beyond it a tenant with a chunk makes do with what it has. 40 bytes an event.
    size_t events_in_all = size_t{1} << 22;
  };
  EventLog() : EventLog(Options{}) {}
  explicit EventLog(Options options);

  // O(1); may allocate one chunk.
  void Append(uint32_t tenant, const StoreEvent& event);

  // Up to `most` events of a tenant from number `sequence` on, in order and without gaps; waits for the first
  // of them until `until`, or until Wake. None: nothing came. OUT_OF_RANGE, naming the oldest that is kept,
  // where that is later, and naming the next that will come where `sequence` is beyond it.
  absl::StatusOr<std::vector<StoreEvent>> Read(uint32_t tenant, uint64_t sequence, size_t most,
                                               std::chrono::steady_clock::time_point until);
  // The number of the next event to come.
  uint64_t NextSequence(uint32_t tenant);
  // Lets all who wait in Read return.
  void Wake();

  // Numbers count from 1 again with every run of a store; this tells the runs apart. Never 0.
  uint64_t run() const { return run_; }

 private:
  static constexpr size_t kChunkEvents = 64;
  using Chunk = std::array<StoreEvent, kChunkEvents>;
  struct TenantLog {
    std::mutex mu;  // guards all below
    std::condition_variable changed;
    std::deque<std::unique_ptr<Chunk>> chunks;
    uint64_t first = 1, next = 1;  // numbers of the oldest event kept and of the next to come
    uint32_t waiting = 0;
    uint64_t wakes = 0;
  };
  TenantLog& LogOf(uint32_t tenant);
  // A chunk for the tenant's next event. REQUIRES: log.mu is held.
  void MakeRoom(TenantLog& log);

  const size_t chunks_per_tenant_, chunks_in_all_;
  const uint64_t run_;
  std::atomic<size_t> chunks_{0};
  std::shared_mutex mu_;  // guards the map; a tenant's log stays where it is
  absl::flat_hash_map<uint32_t, std::unique_ptr<TenantLog>> tenants_;
};

}  // namespace quire::store

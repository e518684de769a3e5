// What this process has written to a shared Redis and not removed, in bytes: its own share, not the server's.
#pragma once

#include <cstdint>
#include <mutex>
#include <queue>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "services/store/tier/object_tier.h"

namespace quire::store::redis {

// Thread-safe. Objects are known by a 64-bit hash of their name: 20 bytes each, and a collision misjudges one
// object's size.
class Ledger {
 public:
  explicit Ledger(uint64_t capacity_bytes) : capacity_(capacity_bytes) {}  // 0: no limit

  // Takes room for an object to be written; what its name holds now counts as free. RESOURCE_EXHAUSTED if it
  // would go over the capacity.
  absl::Status Reserve(const ObjectName& name, uint64_t bytes, int64_t now_ms);
  void Return(uint64_t bytes);  // a reservation whose write failed
  // The reservation becomes the object's, until expires_ms (Unix time; 0: until it is removed).
  void Commit(const ObjectName& name, uint64_t bytes, int64_t expires_ms);
  void Shrink(const ObjectName& name, uint64_t bytes);  // if this process wrote it
  void Forget(const ObjectName& name);
  bool Holds(const ObjectName& name);

  uint64_t used_bytes(int64_t now_ms);

 private:
  struct Entry {
    uint64_t bytes = 0;
    int64_t expires_ms = 0;
  };
  using Expiry = std::pair<int64_t, uint64_t>;  // when, hash
  void DropExpired(int64_t now_ms);             // REQUIRES: mu_ is held

  const uint64_t capacity_;
  std::mutex mu_;  // guards all below
  uint64_t used_ = 0;
  absl::flat_hash_map<uint64_t, Entry> entries_;
  std::priority_queue<Expiry, std::vector<Expiry>, std::greater<>> expiries_;
};

}  // namespace quire::store::redis

// What a tier in memory offers: room for objects, charged by what it really takes. Tiers that outlive the
// process have the interface of services/store/tier.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/bytes.h"
#include "services/store/api/kv_store.h"

namespace quire::store {

// Bytes readable on the host for as long as `owner` lives.
struct PinnedBytes {
  std::shared_ptr<const void> owner;
  Bytes bytes;
};

// The room of one object. Filled by one writer, who then seals it, before anyone else sees it; read-only
// afterwards. Destroying it gives the room back. A sealed object that nobody has pinned may be moved within
// its tier.
class TierObject {
 public:
  virtual ~TierObject() = default;
  virtual uint64_t bytes() const = 0;    // as asked for
  virtual uint64_t charged() const = 0;  // as taken, rounding and records included
  // OUT_OF_RANGE past bytes().
  virtual absl::Status Write(uint64_t offset, Bytes data) = 0;
  virtual absl::StatusOr<PinnedBytes> Read() = 0;
  // Where the one writer may put the object's bytes itself; empty where the host cannot write there.
  virtual MutableBytes Fill() { return {}; }
  virtual void Seal() = 0;  // once, after the last byte was written
  // Keeps the first `bytes` (fewer than there are) and gives the rest's room back. REQUIRES: nobody reads.
  virtual void Shrink(uint64_t bytes) = 0;
};

// Thread-safe.
class StorageTier {
 public:
  virtual ~StorageTier() = default;
  virtual Tier kind() const = 0;
  // RESOURCE_EXHAUSTED if there is no room now (the caller evicts and asks again); never grows. REQUIRES:
  // bytes > 0.
  virtual absl::StatusOr<std::shared_ptr<TierObject>> Stage(uint64_t bytes) = 0;
  virtual uint64_t capacity_bytes() const = 0;
  virtual uint64_t used_bytes() const = 0;  // sum of charges, objects not yet committed included
};

}  // namespace quire::store

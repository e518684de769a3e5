// What every tier of the store offers: room for objects, charged by what it really takes.
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

// The room of one object. Filled by one writer before anyone else sees it, read-only afterwards; destroying
// it gives the room back.
class TierObject {
 public:
  virtual ~TierObject() = default;
  virtual uint64_t bytes() const = 0;    // as asked for
  virtual uint64_t charged() const = 0;  // as taken, rounding and records included
  // OUT_OF_RANGE past bytes().
  virtual absl::Status Write(uint64_t offset, Bytes data) = 0;
  virtual absl::StatusOr<PinnedBytes> Read() = 0;
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

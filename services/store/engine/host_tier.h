// The host tier: one arena of anonymous memory, reserved when the store starts.
//
// Objects lie in one piece each, so levels that were dropped and objects of other sizes leave holes that no
// object fits into. When there is room enough but in no one place, the arena gathers it: it slides sealed,
// unpinned objects down over a hole until the hole, which rises and takes in others on its way, is large
// enough. To gather room for one object costs about the copying of a few.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/statusor.h"
#include "services/store/engine/allocator.h"
#include "services/store/engine/tier.h"

namespace quire::store {

// Objects keep the tier alive.
class HostTier : public StorageTier, public std::enable_shared_from_this<HostTier> {
 public:
  // RESOURCE_EXHAUSTED, naming both sizes, if this machine (or its control group) has less memory than
  // `bytes`; INVALID_ARGUMENT below 1 MiB. `prefault`: touch every page now, so that no later write can fail
  // or stall.
  static absl::StatusOr<std::shared_ptr<HostTier>> Create(uint64_t bytes, bool prefault);
  ~HostTier() override;

  Tier kind() const override { return Tier::kHost; }
  absl::StatusOr<std::shared_ptr<TierObject>> Stage(uint64_t bytes) override;
  uint64_t capacity_bytes() const override { return capacity_; }
  uint64_t used_bytes() const override;

 private:
  class Object;
  HostTier(uint8_t* base, uint64_t capacity) : base_(base), capacity_(capacity), allocator_(capacity) {}

  uint8_t* const base_;
  const uint64_t capacity_;
  // REQUIRE: mu_ is held. A free block of so many bytes; false if a bounded effort did not make one.
  bool Gather(uint64_t bytes);
  // REQUIRE: mu_ is held. Moves objects down into the holes under them, from the cursor on and at most
  // `budget` bytes, until a hole holds `bytes`.
  bool SlideUp(ExtentAllocator::Cursor cursor, uint64_t bytes, uint64_t budget);

  mutable std::mutex mu_;  // guards all below, and where objects are
  ExtentAllocator allocator_;
  std::vector<Object*> objects_;  // by handle
};

}  // namespace quire::store

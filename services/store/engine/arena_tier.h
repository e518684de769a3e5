// What the tiers in memory share: one arena, reserved when the store starts, and the objects in it.
//
// Objects lie in one piece each, so levels that were dropped and objects of other sizes leave holes that no
// object fits into. When there is room enough but in no one place, the arena gathers it: it moves a sealed,
// unpinned object from beside a hole into another hole, or slides objects down over a hole until the hole,
// which rises and takes in others on its way, is large enough. To gather room for one object costs about the
// copying of a few.
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
class ArenaTier : public StorageTier, public std::enable_shared_from_this<ArenaTier> {
 public:
  absl::StatusOr<std::shared_ptr<TierObject>> Stage(uint64_t bytes) override;
  uint64_t capacity_bytes() const override { return capacity_; }
  uint64_t used_bytes() const override;

 protected:
  ArenaTier(uint8_t* base, uint64_t capacity) : base_(base), capacity_(capacity), allocator_(capacity) {}
  uint8_t* base() const { return base_; }
  // Where an object of this tier lies, kept there for as long as the result lives.
  static std::shared_ptr<const uint8_t> Hold(TierObject& object);

 private:
  class Object;
  // The arena's memory, in which all pointers but a caller's are.
  virtual bool host_reaches_it() const = 0;
  virtual absl::Status CopyIn(Bytes from, uint8_t* to) = 0;
  // Bytes that the host can read; `held` keeps them where they are.
  virtual absl::StatusOr<PinnedBytes> View(std::shared_ptr<const uint8_t> held, uint64_t bytes) = 0;
  // They overlap only if `to` is the lower. False: nothing was changed.
  virtual bool Move(const uint8_t* from, uint8_t* to, uint64_t bytes) = 0;
  // REQUIRE: mu_ is held. A free block of so many bytes; false if a bounded effort did not make one.
  bool Gather(uint64_t bytes);
  // REQUIRE: mu_ is held. Moves one object from beside a hole into another, if that makes a hole of `bytes`.
  bool MoveAside(uint64_t bytes);
  // REQUIRE: mu_ is held. Moves objects down into the holes under them, from the cursor on and at most
  // `budget` bytes, until a hole holds `bytes`.
  bool SlideUp(ExtentAllocator::Cursor cursor, uint64_t bytes, uint64_t budget);

  uint8_t* const base_;
  const uint64_t capacity_;
  mutable std::mutex mu_;  // guards all below, and where objects are
  ExtentAllocator allocator_;
  std::vector<Object*> objects_;  // by handle
};

}  // namespace quire::store

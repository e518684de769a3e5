// The host tier: one arena of anonymous memory, reserved when the store starts.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "services/store/engine/arena_tier.h"
#include "services/store/engine/device.h"

namespace quire::store {

// Objects keep the tier alive.
class HostTier : public ArenaTier {
 public:
  // RESOURCE_EXHAUSTED, naming both sizes, if this machine (or its control group) has less memory than
  // `bytes`; INVALID_ARGUMENT below 1 MiB. `prefault`: touch every page now, so that no later write can fail
  // or stall.
  static absl::StatusOr<std::shared_ptr<HostTier>> Create(uint64_t bytes, bool prefault);
  ~HostTier() override;

  Tier kind() const override { return Tier::kHost; }
  // Page-locks the arena, so that it exchanges objects with a device at the link's speed. At most once.
  absl::Status PinFor(Device& device);

 private:
  HostTier(uint8_t* base, uint64_t capacity) : ArenaTier(base, capacity) {}
  bool host_reaches_it() const override { return true; }
  absl::Status CopyIn(Bytes from, uint8_t* to) override;
  absl::StatusOr<PinnedBytes> View(std::shared_ptr<const uint8_t> held, uint64_t bytes) override;
  bool Move(const uint8_t* from, uint8_t* to, uint64_t bytes) override;

  std::shared_ptr<const void> pinned_;
};

}  // namespace quire::store

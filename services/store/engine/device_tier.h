// The tier in a device's memory: one arena there, reserved when the store starts. What is put into it as raw
// KV is encoded in place; codes come down to the host only for readers there.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "services/store/engine/arena_tier.h"
#include "services/store/engine/device.h"

namespace quire::store {

// Objects keep the tier alive. Unsealed rooms have one user at a time.
class DeviceTier : public ArenaTier {
 public:
  // RESOURCE_EXHAUSTED, naming both sizes, if the device has less memory left than `bytes`; INVALID_ARGUMENT
  // below 1 MiB.
  static absl::StatusOr<std::shared_ptr<DeviceTier>> Create(std::shared_ptr<Device> device, uint64_t bytes);

  Tier kind() const override { return Tier::kGpu; }
  Device& device() const { return *device_; }
  const std::shared_ptr<Device>& shared_device() const { return device_; }

  // Where an object of this tier lies on the device, kept there for as long as the result lives.
  static std::shared_ptr<const uint8_t> Locate(TierObject& object) { return Hold(object); }
  // Brings the whole of an object, or `out`'s size from its beginning, to the host.
  absl::Status Download(TierObject& object, MutableBytes out);

 private:
  DeviceTier(std::shared_ptr<Device> device, std::shared_ptr<uint8_t> memory, uint64_t capacity)
      : ArenaTier(memory.get(), capacity), device_(std::move(device)), memory_(std::move(memory)) {}
  bool host_reaches_it() const override { return false; }
  absl::Status CopyIn(Bytes from, uint8_t* to) override;
  absl::StatusOr<PinnedBytes> View(std::shared_ptr<const uint8_t> held, uint64_t bytes) override;
  bool Move(const uint8_t* from, uint8_t* to, uint64_t bytes) override;

  std::shared_ptr<Device> device_;
  std::shared_ptr<uint8_t> memory_;  // the arena, and the scratch that objects slide through
};

}  // namespace quire::store

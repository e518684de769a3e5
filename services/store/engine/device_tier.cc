#include "services/store/engine/device_tier.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace quire::store {
namespace {

constexpr uint64_t kMinBytes = 1 << 20;
constexpr uint64_t kScratchBytes = 1 << 20;  // behind the arena
constexpr uint64_t kAlignment = 256;

}  // namespace

absl::StatusOr<std::shared_ptr<DeviceTier>> DeviceTier::Create(std::shared_ptr<Device> device,
                                                               uint64_t bytes) {
  if (bytes < kMinBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("gpu tier of ", bytes, " bytes: at least ", kMinBytes, " are needed"));
  }
  bytes = bytes / kAlignment * kAlignment;
  absl::StatusOr<std::shared_ptr<uint8_t>> memory = device->Allocate(bytes + kScratchBytes);
  if (!memory.ok()) {
    return absl::Status(memory.status().code(),
                        absl::StrCat("gpu tier of ", bytes,
                                     " bytes cannot be reserved: ", std::string(memory.status().message())));
  }
  return std::shared_ptr<DeviceTier>(new DeviceTier(std::move(device), *std::move(memory), bytes));
}

absl::Status DeviceTier::CopyIn(Bytes from, uint8_t* to) {
  Device::Copy copy{from.data(), to, from.size()};
  return device_->CopyAll({&copy, 1});
}

absl::StatusOr<PinnedBytes> DeviceTier::View(std::shared_ptr<const uint8_t> held, uint64_t bytes) {
  auto copy = std::make_shared<std::vector<uint8_t>>(bytes);
  Device::Copy down{held.get(), copy->data(), bytes};
  QUIRE_RETURN_IF_ERROR(device_->CopyAll({&down, 1}));
  Bytes view(*copy);
  return PinnedBytes{std::move(copy), view};
}

absl::Status DeviceTier::Download(TierObject& object, MutableBytes out) {
  std::shared_ptr<const uint8_t> held = Hold(object);
  Device::Copy down{held.get(), out.data(), out.size()};
  return device_->CopyAll({&down, 1});
}

bool DeviceTier::Move(const uint8_t* from, uint8_t* to, uint64_t bytes) {
  std::vector<Device::Copy> copies;
  if (to + bytes <= from || from + bytes <= to) {
    copies.push_back({from, to, bytes});
  } else {
    // Piece after piece, upwards, through the scratch: no piece is written over before it was read.
    uint8_t* scratch = base() + capacity_bytes();
    for (uint64_t at = 0; at < bytes; at += kScratchBytes) {
      uint64_t piece = std::min(kScratchBytes, bytes - at);
      copies.push_back({from + at, scratch, piece});
      copies.push_back({scratch, to + at, piece});
    }
  }
  absl::Status moved = device_->CopyAll(copies);
  // A copy on the device fails only with the device, and then its readers fail too, whose bytes are verified.
  if (!moved.ok()) spdlog::error("store: the gpu tier: {}", std::string(moved.message()));
  return moved.ok();
}

}  // namespace quire::store

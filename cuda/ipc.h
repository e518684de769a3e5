// Device memory that processes on one machine share.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace quire::cuda {

using DeviceUuid = std::array<uint8_t, 16>;
absl::StatusOr<DeviceUuid> CurrentDeviceUuid();

// What names memory to another process. Holding it keeps nothing.
struct SharedMemoryName {
  std::array<uint8_t, 64> handle{};  // of the whole allocation
  uint64_t offset = 0;               // within it
  DeviceUuid device{};
};

// Names memory of this process from DeviceBuffer::Allocate (or any cudaMalloc). The allocation must not be
// freed while another process has it open.
absl::StatusOr<SharedMemoryName> ShareMemory(const void* device_memory);

// Another process's allocation, mapped until this dies. Movable.
class ImportedMemory {
 public:
  // FAILED_PRECONDITION if it is on another device, was freed, or is this process's own.
  static absl::StatusOr<ImportedMemory> Open(const SharedMemoryName& name);
  ImportedMemory(ImportedMemory&& other) noexcept
      : base_(std::exchange(other.base_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  ImportedMemory& operator=(ImportedMemory&& other) noexcept {
    std::swap(base_, other.base_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~ImportedMemory();

  uint8_t* base() const { return base_; }
  uint64_t bytes() const { return bytes_; }  // of the whole allocation, as the driver says

 private:
  ImportedMemory(uint8_t* base, uint64_t bytes) : base_(base), bytes_(bytes) {}
  uint8_t* base_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace quire::cuda

// Device and pinned host memory: RAII owns, raw pointers borrow. Allocation may synchronise the device, so it
// happens when things are set up, never inside an operation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cuda/stream.h"

namespace quire::cuda {

// Bytes of device memory, 256-byte aligned. Movable.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  // RESOURCE_EXHAUSTED if the device has not that much left.
  static absl::StatusOr<DeviceBuffer> Allocate(size_t bytes);
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~DeviceBuffer();

  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  DeviceBuffer(uint8_t* data, size_t bytes) : data_(data), bytes_(bytes) {}
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

// Page-locked host memory that kernels can also reach directly (zero-copy). Movable.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  static absl::StatusOr<PinnedBuffer> Allocate(size_t bytes);
  PinnedBuffer(PinnedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~PinnedBuffer();

  // The same address serves host and device (unified addressing).
  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  PinnedBuffer(uint8_t* data, size_t bytes) : data_(data), bytes_(bytes) {}
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

// Page-locks memory that the caller has, until this dies; which must be before the memory goes. Movable.
class HostRegistration {
 public:
  static absl::StatusOr<HostRegistration> Create(void* memory, size_t bytes);
  HostRegistration(HostRegistration&& other) noexcept : memory_(std::exchange(other.memory_, nullptr)) {}
  HostRegistration& operator=(HostRegistration&& other) noexcept {
    std::swap(memory_, other.memory_);
    return *this;
  }
  ~HostRegistration();

 private:
  explicit HostRegistration(void* memory) : memory_(memory) {}
  void* memory_ = nullptr;
};

// Asynchronous copies; host memory must be pinned for them to overlap anything.
absl::Status CopyToDevice(StreamRef stream, const void* host, size_t bytes, void* device);
absl::Status CopyToHost(StreamRef stream, const void* device, size_t bytes, void* host);
absl::Status CopyOnDevice(StreamRef stream, const void* from, size_t bytes, void* to);
// Whichever of these the addresses say.
absl::Status CopyAny(StreamRef stream, const void* from, size_t bytes, void* to);
// `rows` pieces of `width` bytes, the next one `from_pitch` and `to_pitch` bytes further; between host and
// device either way.
absl::Status CopyRows(StreamRef stream, const void* from, size_t from_pitch, void* to, size_t to_pitch,
                      size_t width, size_t rows);
absl::Status Fill(StreamRef stream, uint8_t value, size_t bytes, void* device);

struct DeviceInfo {
  int ordinal = 0;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  size_t shared_bytes = 0;  // a thread block may have
};
// NOT_FOUND where there is no usable device: no driver, no GPU.
absl::StatusOr<DeviceInfo> CurrentDevice();
absl::StatusOr<size_t> FreeDeviceBytes();

}  // namespace quire::cuda

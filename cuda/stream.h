// Handles of the CUDA runtime as typed arguments, so that no caller includes a CUDA header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace quire::cuda {

// A borrowed cudaStream_t. Every operation that runs on a device names its stream; there is no default.
struct StreamRef {
  void* handle = nullptr;
};

// Owns a non-blocking stream of the current device. Movable. Destroying it does not wait.
class Stream {
 public:
  static absl::StatusOr<Stream> Create();
  Stream(Stream&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Stream& operator=(Stream&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Stream();

  StreamRef ref() const { return {handle_}; }
  // Blocks until all work enqueued so far is done; the first error of that work, if any, as INTERNAL.
  absl::Status Synchronize() const;

 private:
  explicit Stream(void* handle) : handle_(handle) {}
  void* handle_ = nullptr;
};

// A point in a stream that another stream, or the host, can wait for. Also a time stamp.
class Event {
 public:
  static absl::StatusOr<Event> Create(bool timed = false);
  Event(Event&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Event& operator=(Event&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Event();

  absl::Status Record(StreamRef stream) const;
  // `stream` goes on only when the recorded point was reached. Does not block the host.
  absl::Status WaitOn(StreamRef stream) const;
  absl::Status Synchronize() const;
  // Milliseconds from `start` to this event. REQUIRES: both timed and reached.
  absl::StatusOr<float> MillisecondsSince(const Event& start) const;

 private:
  explicit Event(void* handle) : handle_(handle) {}
  void* handle_ = nullptr;
};

}  // namespace quire::cuda

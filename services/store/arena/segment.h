// Memory that a store shares with one client: a memfd whose size is sealed, so that neither side can take
// pages away under the other's feet. Its bytes may change at any time while both live: copy first, then look.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "core/base/bytes.h"
#include "services/store/arena/unique_fd.h"

namespace quire::store {

class SharedSegment {
 public:
  // The store's side. All pages are there when it returns: RESOURCE_EXHAUSTED if the machine has them not.
  static absl::StatusOr<SharedSegment> Create(uint64_t bytes);
  // The client's side: takes over a descriptor that came from a store. DATA_LOSS if it is not sealed, or not
  // of `bytes` bytes.
  static absl::StatusOr<SharedSegment> Map(UniqueFd fd, uint64_t bytes);
  SharedSegment(SharedSegment&& other) noexcept
      : fd_(std::move(other.fd_)),
        base_(std::exchange(other.base_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)) {}
  SharedSegment& operator=(SharedSegment&&) = delete;
  ~SharedSegment();

  int fd() const { return fd_.get(); }
  MutableBytes all() const { return {base_, bytes_}; }
  uint64_t bytes() const { return bytes_; }

 private:
  SharedSegment(UniqueFd fd, uint8_t* base, uint64_t bytes)
      : fd_(std::move(fd)), base_(base), bytes_(bytes) {}
  static absl::StatusOr<SharedSegment> MapAll(UniqueFd fd, uint64_t bytes);

  UniqueFd fd_;
  uint8_t* base_ = nullptr;
  uint64_t bytes_ = 0;
};

// Whether [offset, offset + length) is a range of something with `bytes` bytes. INVALID_ARGUMENT.
absl::Status CheckRange(uint64_t offset, uint64_t length, uint64_t bytes);

}  // namespace quire::store

// The client's side of an arena: the segment it was given, and the connection that keeps it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "services/store/arena/range_allocator.h"
#include "services/store/arena/segment.h"

namespace quire::store {

// Thread-safe, but for the bytes themselves.
class AttachedArena : public std::enable_shared_from_this<AttachedArena> {
 public:
  // Shows the token at the socket and maps what is handed over. UNAVAILABLE if the socket cannot be reached
  // or hands over nothing within `timeout`, DATA_LOSS if it hands over something else.
  static absl::StatusOr<std::shared_ptr<AttachedArena>> Claim(const std::string& socket,
                                                              const std::string& token, const std::string& id,
                                                              uint64_t bytes,
                                                              std::chrono::milliseconds timeout);

  const std::string& id() const { return id_; }
  uint64_t bytes() const { return segment_.bytes(); }
  // The store still holds its end, and nobody has said Retire.
  bool usable() const;
  // No range is handed out any more. For when a call broke off: the store may still be reading or writing the
  // call's ranges, so no other call may have them.
  void Retire() { retired_.store(true, std::memory_order_relaxed); }

  // A part of the segment, free again when this dies. Keeps the arena.
  class Range {
   public:
    Range(Range&& other) noexcept
        : arena_(std::move(other.arena_)), offset_(other.offset_), bytes_(other.bytes_) {}
    Range& operator=(Range&& other) noexcept {
      std::swap(arena_, other.arena_);
      std::swap(offset_, other.offset_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Range() {
      if (arena_ != nullptr) arena_->ranges_.Give(offset_, bytes_);
    }
    uint64_t offset() const { return offset_; }
    MutableBytes bytes() const { return arena_->segment_.all().subspan(offset_, bytes_); }

   private:
    friend class AttachedArena;
    Range(std::shared_ptr<AttachedArena> arena, uint64_t offset, uint64_t bytes)
        : arena_(std::move(arena)), offset_(offset), bytes_(bytes) {}
    std::shared_ptr<AttachedArena> arena_;
    uint64_t offset_, bytes_;
  };
  // None: there is no such room now, or the arena is retired.
  std::optional<Range> Take(uint64_t bytes);
  uint64_t free_bytes() const { return ranges_.free_bytes(); }

 private:
  AttachedArena(UniqueFd connection, SharedSegment segment, std::string id)
      : connection_(std::move(connection)),
        segment_(std::move(segment)),
        id_(std::move(id)),
        ranges_(segment_.bytes()) {}

  UniqueFd connection_;
  SharedSegment segment_;
  const std::string id_;
  RangeAllocator ranges_;
  std::atomic<bool> retired_{false};
};

}  // namespace quire::store

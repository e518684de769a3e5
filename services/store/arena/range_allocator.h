// Which parts of a client's arena are in use by its own calls.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>

namespace quire::store {

// First fit; ranges begin on 64 bytes. Thread-safe.
class RangeAllocator {
 public:
  explicit RangeAllocator(uint64_t bytes);
  // The offset of `bytes` free bytes, which are taken until Give; none: there are not so many in one piece.
  std::optional<uint64_t> Take(uint64_t bytes);
  void Give(uint64_t offset, uint64_t bytes);
  uint64_t free_bytes() const;

 private:
  mutable std::mutex mu_;
  std::map<uint64_t, uint64_t> free_;  // offset → length; neighbours are joined
};

}  // namespace quire::store

#include "services/store/arena/range_allocator.h"

#include <algorithm>
#include <iterator>

namespace quire::store {
namespace {

constexpr uint64_t kAlignment = 64;
uint64_t Rounded(uint64_t bytes) {
  return (std::max<uint64_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

RangeAllocator::RangeAllocator(uint64_t bytes) {
  if (uint64_t whole = bytes / kAlignment * kAlignment; whole > 0) free_.emplace(0, whole);
}

std::optional<uint64_t> RangeAllocator::Take(uint64_t bytes) {
  if (bytes > UINT64_MAX - kAlignment) return std::nullopt;
  bytes = Rounded(bytes);
  std::lock_guard lock(mu_);
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    auto [offset, length] = *it;
    if (length < bytes) continue;
    free_.erase(it);
    if (length > bytes) free_.emplace(offset + bytes, length - bytes);
    return offset;
  }
  return std::nullopt;
}

void RangeAllocator::Give(uint64_t offset, uint64_t bytes) {
  bytes = Rounded(bytes);
  std::lock_guard lock(mu_);
  auto next = free_.upper_bound(offset);
  if (next != free_.end() && offset + bytes == next->first) {
    bytes += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    auto before = std::prev(next);
    if (before->first + before->second == offset) {
      before->second += bytes;
      return;
    }
  }
  free_.emplace(offset, bytes);
}

uint64_t RangeAllocator::free_bytes() const {
  std::lock_guard lock(mu_);
  uint64_t bytes = 0;
  for (auto [offset, length] : free_) bytes += length;
  return bytes;
}

}  // namespace quire::store

#include "services/store/client/arena_put.h"

#include <cstring>
#include <optional>
#include <utility>

namespace quire::store {
namespace {

// Fewer bytes are as fast within the message.
constexpr size_t kLeastBytes = 16 << 10;
// Of one stream, unless a block alone has more: the same few ranges are written again and again, so that the
// store reads them from a cache.
constexpr uint64_t kWindowBytes = 16 << 20;

}  // namespace

bool ArenaPut::Place(uint32_t block, Bytes data, bool wait, v1::BlockData* chunk) {
  chunk->clear_arena_range();
  if (arena_ == nullptr || data.size() < kLeastBytes) return false;
  std::optional<AttachedArena::Range> range;
  if (wait) {
    std::unique_lock lock(mu_);
    changed_.wait(lock, [&] {
      size_t others = held_.size() - (held_.contains(block) ? 1 : 0);
      if (others == 0 || held_bytes_ + data.size() <= kWindowBytes) range = arena_->Take(data.size());
      return range || others == 0 || abandoned_;
    });
  } else {
    range = arena_->Take(data.size());
  }
  if (!range) return false;
  std::memcpy(range->bytes().data(), data.data(), data.size());
  chunk->clear_data();
  chunk->mutable_arena_range()->set_offset(range->offset());
  chunk->mutable_arena_range()->set_length(data.size());
  std::lock_guard lock(mu_);
  held_[block].push_back(*std::move(range));
  held_bytes_ += data.size();
  return true;
}

void ArenaPut::Answered(uint32_t block) {
  if (arena_ == nullptr) return;
  {
    std::lock_guard lock(mu_);
    if (auto held = held_.find(block); held != held_.end()) {
      for (const AttachedArena::Range& range : held->second) held_bytes_ -= range.bytes().size();
      held_.erase(held);
    }
  }
  changed_.notify_all();
}

void ArenaPut::Abandon() {
  if (arena_ == nullptr) return;
  {
    std::lock_guard lock(mu_);
    abandoned_ = true;
    if (!held_.empty()) arena_->Retire();
    held_.clear();
    held_bytes_ = 0;
  }
  changed_.notify_all();
}

}  // namespace quire::store

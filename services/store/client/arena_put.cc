#include "services/store/client/arena_put.h"

#include <cstring>
#include <optional>
#include <utility>

namespace quire::store {
namespace {

// Fewer bytes are as fast within the message.
constexpr size_t kLeastBytes = 16 << 10;

}  // namespace

bool ArenaPut::Place(uint32_t block, Bytes data, bool wait, v1::BlockData* chunk) {
  chunk->clear_arena_range();
  if (arena_ == nullptr || data.size() < kLeastBytes) return false;
  std::optional<AttachedArena::Range> range = arena_->Take(data.size());
  if (!range && wait) {
    std::unique_lock lock(mu_);
    changed_.wait(lock, [&] {
      range = arena_->Take(data.size());
      size_t others = held_.size() - (held_.contains(block) ? 1 : 0);
      return range || others == 0 || abandoned_;
    });
  }
  if (!range) return false;
  std::memcpy(range->bytes().data(), data.data(), data.size());
  chunk->clear_data();
  chunk->mutable_arena_range()->set_offset(range->offset());
  chunk->mutable_arena_range()->set_length(data.size());
  std::lock_guard lock(mu_);
  held_[block].push_back(*std::move(range));
  return true;
}

void ArenaPut::Answered(uint32_t block) {
  if (arena_ == nullptr) return;
  {
    std::lock_guard lock(mu_);
    held_.erase(block);
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
  }
  changed_.notify_all();
}

}  // namespace quire::store

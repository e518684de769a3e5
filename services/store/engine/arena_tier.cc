#include "services/store/engine/arena_tier.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quire::store {

class ArenaTier::Object : public TierObject, public std::enable_shared_from_this<Object> {
 public:
  Object(std::shared_ptr<ArenaTier> tier, ExtentAllocator::Handle handle, uint8_t* data, uint64_t bytes)
      : tier_(std::move(tier)), handle_(handle), data_(data), bytes_(bytes) {}
  ~Object() override {
    std::lock_guard lock(tier_->mu_);
    tier_->objects_[handle_] = nullptr;
    tier_->allocator_.Free(handle_);
  }

  uint64_t bytes() const override { return bytes_; }
  uint64_t charged() const override { return ExtentAllocator::Charge(bytes_); }
  absl::Status Write(uint64_t offset, Bytes data) override {
    if (offset > bytes_ || data.size() > bytes_ - offset) {
      return absl::OutOfRangeError(
          absl::StrCat("write of ", data.size(), " bytes at ", offset, " into an object of ", bytes_));
    }
    if (data.empty()) return absl::OkStatus();
    return tier_->CopyIn(data, data_ + offset);
  }
  absl::StatusOr<PinnedBytes> Read() override { return tier_->View(Hold(), bytes_); }
  MutableBytes Fill() override {
    return tier_->host_reaches_it() ? MutableBytes(data_, bytes_) : MutableBytes();
  }
  void Seal() override { Unpin(); }
  void Shrink(uint64_t bytes) override {
    std::lock_guard lock(tier_->mu_);
    tier_->allocator_.Shrink(handle_, bytes);
    bytes_ = bytes;
  }
  std::shared_ptr<const uint8_t> Hold() {
    std::lock_guard lock(tier_->mu_);
    ++pins_;
    return {data_, [self = shared_from_this()](const void*) { self->Unpin(); }};
  }

  // REQUIRE: the tier's lock is held.
  bool movable() const { return pins_ == 0; }
  bool MoveTo(uint8_t* data) {
    if (!tier_->Move(data_, data, bytes_)) return false;
    data_ = data;
    return true;
  }

 private:
  void Unpin() {
    std::lock_guard lock(tier_->mu_);
    --pins_;
  }

  std::shared_ptr<ArenaTier> tier_;
  const ExtentAllocator::Handle handle_;
  uint8_t* data_;  // changes only while nothing pins it
  uint64_t bytes_;
  uint64_t pins_ = 1;  // the writer's; guarded by the tier's lock
};

std::shared_ptr<const uint8_t> ArenaTier::Hold(TierObject& object) {
  return static_cast<Object&>(object).Hold();
}

bool ArenaTier::Gather(uint64_t bytes) {
  // Cheapest first. Sizes are few, so an object beside a hole often fits into another hole. Objects that go
  // cold together mostly stand together, so where one was cut its neighbours were, too, and a few moves make
  // room. Elsewhere a byte found costs as many moved ones as there are to a free one: it is cheaper to leave
  // the holes until they are many.
  constexpr uint64_t kMovesNearby = 12, kMovesAnywhere = 64;  // bytes moved at most for each that is wanted
  constexpr int kObjectsDown = 16;
  using Cursor = ExtentAllocator::Cursor;
  if (MoveAside(bytes)) return true;
  allocator_.StepDown(Cursor::kCut, kObjectsDown);
  if (SlideUp(Cursor::kCut, bytes, kMovesNearby * bytes)) return true;
  bool many_holes = (capacity_ - allocator_.used()) * kMovesAnywhere > capacity_;
  return many_holes && SlideUp(Cursor::kSweep, bytes, kMovesAnywhere * bytes);
}

bool ArenaTier::MoveAside(uint64_t bytes) {
  auto movable = [&](ExtentAllocator::Handle handle) { return objects_[handle]->movable(); };
  std::optional<ExtentAllocator::Move> move = allocator_.MoveFor(bytes, movable);
  if (!move || !objects_[move->object]->MoveTo(base_ + allocator_.offset(move->place))) return false;
  allocator_.Relocate(move->object, move->place);
  return true;
}

bool ArenaTier::SlideUp(ExtentAllocator::Cursor cursor, uint64_t bytes, uint64_t budget) {
  for (int laps = 0; laps < 2;) {
    std::optional<ExtentAllocator::Handle> free = allocator_.NextFree(cursor);
    if (!free) {
      ++laps;
      continue;
    }
    if (allocator_.size(*free) >= bytes) return true;
    std::optional<ExtentAllocator::Handle> above = allocator_.Above(*free);
    if (!above || !objects_[*above]->movable()) {
      // The hole stays where it is, under the end or under what is held.
      if (above) allocator_.SkipTo(cursor, *above);
      laps += above ? 0 : 1;
      if (!above) allocator_.SkipToBottom(cursor);
      continue;
    }
    uint64_t size = allocator_.size(*above);
    if (size > budget) return false;
    budget -= size;
    if (!objects_[*above]->MoveTo(base_ + allocator_.offset(*free))) return false;
    allocator_.SlideDown(*free, *above);
  }
  return false;
}

absl::StatusOr<std::shared_ptr<TierObject>> ArenaTier::Stage(uint64_t bytes) {
  std::shared_ptr<Object> object;
  std::lock_guard lock(mu_);
  std::optional<ExtentAllocator::Handle> handle = allocator_.Allocate(bytes);
  bool has_room = allocator_.used() + ExtentAllocator::Charge(bytes) <= capacity_;
  if (!handle && has_room && Gather(bytes)) handle = allocator_.Allocate(bytes);
  if (!handle) {
    return absl::ResourceExhaustedError(absl::StrCat(TierName(kind()), " tier has no free room of ", bytes,
                                                     " bytes (", allocator_.used(), " of ", capacity_,
                                                     " used)"));
  }
  object = std::make_shared<Object>(shared_from_this(), *handle, base_ + allocator_.offset(*handle), bytes);
  if (objects_.size() <= *handle) objects_.resize(*handle + size_t{1});
  objects_[*handle] = object.get();
  return object;
}

uint64_t ArenaTier::used_bytes() const {
  std::lock_guard lock(mu_);
  return allocator_.used();
}

}  // namespace quire::store

#include "services/store/engine/host_tier.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <mutex>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace quire::store {
namespace {

constexpr uint64_t kMinBytes = 1 << 20;
constexpr uint64_t kPage = 4096;

// Memory this process may use at most: the machine's, or less where a control group says so.
uint64_t MemoryLimit() {
  uint64_t limit =
      static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGE_SIZE));
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::ifstream file(path);
    std::string text;
    uint64_t value = 0;
    if (file >> text && absl::SimpleAtoi(text, &value)) limit = std::min(limit, value);  // "max" is no number
  }
  return limit;
}

bool Prefault(uint8_t* base, uint64_t bytes) {
#ifdef MADV_POPULATE_WRITE
  if (madvise(base, bytes, MADV_POPULATE_WRITE) == 0) return true;
  if (errno != EINVAL) return false;  // EINVAL: a kernel before 5.14
#endif
  for (uint64_t at = 0; at < bytes; at += kPage) static_cast<volatile uint8_t*>(base)[at] = 0;
  return true;
}

}  // namespace

class HostTier::Object : public TierObject, public std::enable_shared_from_this<Object> {
 public:
  Object(std::shared_ptr<HostTier> tier, ExtentAllocator::Handle handle, uint8_t* data, uint64_t bytes)
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
    if (!data.empty()) std::memcpy(data_ + offset, data.data(), data.size());
    return absl::OkStatus();
  }
  absl::StatusOr<PinnedBytes> Read() override {
    std::lock_guard lock(tier_->mu_);
    ++pins_;
    return PinnedBytes{
        std::shared_ptr<const void>(data_, [self = shared_from_this()](const void*) { self->Unpin(); }),
        {data_, bytes_}};
  }
  MutableBytes Fill() override { return {data_, bytes_}; }
  void Seal() override { Unpin(); }
  void Shrink(uint64_t bytes) override {
    std::lock_guard lock(tier_->mu_);
    tier_->allocator_.Shrink(handle_, bytes);
    bytes_ = bytes;
  }

  // REQUIRE: the tier's lock is held.
  bool movable() const { return pins_ == 0; }
  void MoveTo(uint8_t* data) {
    std::memmove(data, data_, bytes_);
    data_ = data;
  }

 private:
  void Unpin() {
    std::lock_guard lock(tier_->mu_);
    --pins_;
  }

  std::shared_ptr<HostTier> tier_;
  const ExtentAllocator::Handle handle_;
  uint8_t* data_;  // changes only while nothing pins it
  uint64_t bytes_;
  uint64_t pins_ = 1;  // the writer's; guarded by the tier's lock
};

absl::StatusOr<std::shared_ptr<HostTier>> HostTier::Create(uint64_t bytes, bool prefault) {
  if (bytes < kMinBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("host tier of ", bytes, " bytes: at least ", kMinBytes, " are needed"));
  }
  uint64_t limit = MemoryLimit();
  if (bytes > limit) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "host tier of ", bytes, " bytes cannot be reserved: this machine allows ", limit, " bytes"));
  }
  bytes = bytes / kPage * kPage;
  void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("host tier of ", bytes, " bytes cannot be reserved: ", std::strerror(errno)));
  }
  madvise(base, bytes, MADV_HUGEPAGE);  // advice only: where huge pages are off, small ones serve
  madvise(base, bytes, MADV_DONTDUMP);  // cached conversations do not belong in core files
  if (prefault && !Prefault(static_cast<uint8_t*>(base), bytes)) {
    int error = errno;
    munmap(base, bytes);
    return absl::ResourceExhaustedError(
        absl::StrCat("host tier of ", bytes, " bytes cannot be filled with pages: ", std::strerror(error)));
  }
  return std::shared_ptr<HostTier>(new HostTier(static_cast<uint8_t*>(base), bytes));
}

HostTier::~HostTier() { munmap(base_, capacity_); }

bool HostTier::Gather(uint64_t bytes) {
  // Objects that go cold together mostly stand together, so where one was cut its neighbours were, too, and a
  // few moves make room. Elsewhere a byte found costs as many moved ones as there are to a free one: it is
  // cheaper to leave the holes until they are many.
  constexpr uint64_t kMovesNearby = 12, kMovesAnywhere = 64;  // bytes moved at most for each that is wanted
  constexpr int kObjectsDown = 16;
  using Cursor = ExtentAllocator::Cursor;
  allocator_.StepDown(Cursor::kCut, kObjectsDown);
  if (SlideUp(Cursor::kCut, bytes, kMovesNearby * bytes)) return true;
  bool many_holes = (capacity_ - allocator_.used()) * kMovesAnywhere > capacity_;
  return many_holes && SlideUp(Cursor::kSweep, bytes, kMovesAnywhere * bytes);
}

bool HostTier::SlideUp(ExtentAllocator::Cursor cursor, uint64_t bytes, uint64_t budget) {
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
    objects_[*above]->MoveTo(base_ + allocator_.offset(*free));
    allocator_.SlideDown(*free, *above);
  }
  return false;
}

absl::StatusOr<std::shared_ptr<TierObject>> HostTier::Stage(uint64_t bytes) {
  std::shared_ptr<Object> object;
  std::lock_guard lock(mu_);
  std::optional<ExtentAllocator::Handle> handle = allocator_.Allocate(bytes);
  bool has_room = allocator_.used() + ExtentAllocator::Charge(bytes) <= capacity_;
  if (!handle && has_room && Gather(bytes)) handle = allocator_.Allocate(bytes);
  if (!handle) {
    return absl::ResourceExhaustedError(absl::StrCat("host tier has no free room of ", bytes, " bytes (",
                                                     allocator_.used(), " of ", capacity_, " used)"));
  }
  object = std::make_shared<Object>(shared_from_this(), *handle, base_ + allocator_.offset(*handle), bytes);
  if (objects_.size() <= *handle) objects_.resize(*handle + size_t{1});
  objects_[*handle] = object.get();
  return object;
}

uint64_t HostTier::used_bytes() const {
  std::lock_guard lock(mu_);
  return allocator_.used();
}

}  // namespace quire::store

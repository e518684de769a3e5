#include "services/store/engine/allocator.h"

#include <algorithm>
#include <bit>

namespace quire::store {

ExtentAllocator::ExtentAllocator(uint64_t capacity) : capacity_(capacity / kGranule * kGranule) {
  for (auto& list : heads_) list.fill(kNone);
  if (capacity_ == 0) return;
  uint32_t all = NewRecord();
  records_[all].offset = 0;
  records_[all].size_free = capacity_;
  PushFree(all);
}

// Sizes below 32 granules have a list each; above, 32 lists share each power of two.
ExtentAllocator::Class ExtentAllocator::ClassOf(uint64_t size) {
  uint64_t n = size / kGranule;
  if (n < kSecond) return {0, static_cast<int>(n)};
  int log = std::bit_width(n) - 1;
  return {log - kSecondBits + 1, static_cast<int>((n >> (log - kSecondBits)) - kSecond)};
}

uint32_t ExtentAllocator::NewRecord() {
  if (spare_.empty()) {
    records_.emplace_back();
    return static_cast<uint32_t>(records_.size() - 1);
  }
  uint32_t index = spare_.back();
  spare_.pop_back();
  records_[index] = Record{};
  return index;
}

void ExtentAllocator::PushFree(uint32_t index) {
  Record& record = records_[index];
  Class c = ClassOf(record.size());
  uint32_t& head = heads_[c.first][c.second];
  record.size_free |= 1;
  record.previous_free = kNone;
  record.next_free = head;
  if (head != kNone) records_[head].previous_free = index;
  head = index;
  first_bits_ |= uint64_t{1} << c.first;
  second_bits_[c.first] |= uint32_t{1} << c.second;
}

void ExtentAllocator::RemoveFree(uint32_t index) {
  Record& record = records_[index];
  if (record.next_free != kNone) records_[record.next_free].previous_free = record.previous_free;
  if (record.previous_free != kNone) {
    records_[record.previous_free].next_free = record.next_free;
  } else {
    Class c = ClassOf(record.size());
    heads_[c.first][c.second] = record.next_free;
    if (record.next_free == kNone) {
      second_bits_[c.first] &= ~(uint32_t{1} << c.second);
      if (second_bits_[c.first] == 0) first_bits_ &= ~(uint64_t{1} << c.first);
    }
  }
  record.size_free &= ~uint64_t{1};
}

std::optional<uint32_t> ExtentAllocator::FindFree(uint64_t size, uint32_t beside) const {
  auto usable = [&](uint32_t i) {
    return beside == kNone || (records_[i].below != beside && records_[i].above != beside);
  };
  Class c = ClassOf(size);
  uint32_t index = heads_[c.first][c.second];
  for (int i = 0; i < kExactTries && index != kNone; ++i, index = records_[index].next_free) {
    if (records_[index].size() >= size && usable(index)) return index;
  }
  // Everything in a class above is large enough.
  uint32_t second = c.second + 1 < kSecond ? second_bits_[c.first] & (~uint32_t{0} << (c.second + 1)) : 0;
  int first = c.first;
  if (second == 0) {
    uint64_t above = first_bits_ & (~uint64_t{0} << (c.first + 1));
    if (above == 0) return std::nullopt;
    first = std::countr_zero(above);
    second = second_bits_[first];
  }
  index = heads_[first][std::countr_zero(second)];
  while (index != kNone && !usable(index)) index = records_[index].next_free;  // two at most are not
  if (index == kNone) return std::nullopt;
  return index;
}

void ExtentAllocator::SplitAbove(uint32_t index, uint64_t size) {
  uint64_t rest = records_[index].size() - size;
  if (rest == 0) return;
  uint32_t upper = NewRecord();  // may move records_
  Record& lower = records_[index];
  Record& record = records_[upper];
  record.offset = lower.offset + size;
  record.size_free = rest;
  record.below = index;
  record.above = lower.above;
  if (record.above != kNone) records_[record.above].below = upper;
  lower.above = upper;
  lower.size_free = size;
  MergeAbove(upper);
  PushFree(upper);
}

void ExtentAllocator::MergeAbove(uint32_t index) {
  uint32_t upper = records_[index].above;
  if (upper == kNone || !records_[upper].free()) return;
  RemoveFree(upper);
  Record& record = records_[index];
  record.size_free += records_[upper].size();
  record.above = records_[upper].above;
  if (record.above != kNone) records_[record.above].below = index;
  std::replace(cursors_.begin(), cursors_.end(), upper, index);
  spare_.push_back(upper);
}

std::optional<ExtentAllocator::Handle> ExtentAllocator::Allocate(uint64_t bytes) {
  if (bytes == 0 || bytes > capacity_) return std::nullopt;
  uint64_t size = Round(bytes);
  std::optional<uint32_t> index = FindFree(size);
  if (!index) return std::nullopt;
  RemoveFree(*index);
  SplitAbove(*index, size);
  used_ += size + kRecordBytes;
  ++objects_;
  return *index;
}

void ExtentAllocator::Free(Handle handle) {
  used_ -= records_[handle].size() + kRecordBytes;
  --objects_;
  Release(handle);
}

void ExtentAllocator::Release(uint32_t index) {
  MergeAbove(index);
  uint32_t lower = records_[index].below;
  if (lower != kNone && records_[lower].free()) {
    RemoveFree(lower);
    PushFree(index);  // so that MergeAbove may take it in
    MergeAbove(lower);
    index = lower;
  }
  PushFree(index);
}

void ExtentAllocator::Shrink(Handle handle, uint64_t bytes) {
  uint64_t size = Round(bytes);
  used_ -= records_[handle].size() - size;
  SplitAbove(handle, size);
  At(Cursor::kCut) = handle;
}

std::optional<ExtentAllocator::Handle> ExtentAllocator::NextFree(Cursor cursor) {
  uint32_t& at = At(cursor);
  while (at != kNone && !records_[at].free()) at = records_[at].above;
  if (at != kNone) return at;
  at = bottom_;
  return std::nullopt;
}

void ExtentAllocator::StepDown(Cursor cursor, int most) {
  uint32_t& at = At(cursor);
  for (int i = 0; i < most; ++i) {
    uint32_t object = records_[at].free() ? records_[at].below : at;
    uint32_t hole = object == kNone ? kNone : records_[object].below;
    if (hole == kNone || !records_[hole].free()) return;
    at = hole;
  }
}

std::optional<ExtentAllocator::Handle> ExtentAllocator::Above(Handle handle) const {
  uint32_t above = records_[handle].above;
  if (above == kNone) return std::nullopt;
  return above;
}

void ExtentAllocator::SlideDown(Handle free, Handle object) {
  RemoveFree(free);
  Record& f = records_[free];
  Record& o = records_[object];
  o.offset = f.offset;
  f.offset = o.offset + o.size();
  o.below = f.below;
  f.above = o.above;
  o.above = free;
  f.below = object;
  if (o.below != kNone) records_[o.below].above = object;
  if (f.above != kNone) records_[f.above].below = free;
  if (f.above != kNone && records_[f.above].free()) MergeAbove(free);
  if (o.below == kNone) bottom_ = object;
  PushFree(free);
}

std::vector<ExtentAllocator::Handle> ExtentAllocator::LargestBelow(uint64_t bytes) const {
  std::vector<Handle> found;
  Class c = ClassOf(Round(bytes));
  uint32_t second = second_bits_[c.first] & ((uint32_t{2} << c.second) - 1);
  for (int first = c.first; found.size() < kMovesWeighed;) {
    for (; second != 0 && found.size() < kMovesWeighed; second &= ~std::bit_floor(second)) {
      uint32_t i = heads_[first][std::bit_width(second) - 1];
      for (; i != kNone && found.size() < kMovesWeighed; i = records_[i].next_free) found.push_back(i);
    }
    uint64_t lower = first_bits_ & ((uint64_t{1} << first) - 1);
    if (lower == 0) break;
    first = std::bit_width(lower) - 1;
    second = second_bits_[first];
  }
  return found;
}

std::optional<ExtentAllocator::Move> ExtentAllocator::MoveOff(Handle free, bool up) const {
  auto next = [&](uint32_t i) { return up ? records_[i].above : records_[i].below; };
  uint32_t object = next(free);
  if (object == kNone) return std::nullopt;
  uint64_t joined = records_[free].size() + records_[object].size();
  if (uint32_t beyond = next(object); beyond != kNone && records_[beyond].free())
    joined += records_[beyond].size();
  std::optional<uint32_t> place = FindFree(records_[object].size(), object);
  if (!place) return std::nullopt;
  return Move{object, *place, joined};
}

void ExtentAllocator::Relocate(Handle object, Handle place) {
  RemoveFree(place);
  SplitAbove(place, records_[object].size());
  // Two blocks of one size change places: the object's record must stay its own.
  Record &o = records_[object], &p = records_[place];
  std::swap(o.offset, p.offset);
  std::swap(o.below, p.below);
  std::swap(o.above, p.above);
  for (uint32_t i : {object, place}) {
    const Record& r = records_[i];
    if (r.below != kNone) records_[r.below].above = i;
    if (r.above != kNone) records_[r.above].below = i;
    if (r.below == kNone) bottom_ = i;
  }
  for (uint32_t& cursor : cursors_) {
    if (cursor == object || cursor == place) cursor = cursor == object ? place : object;
  }
  Release(place);
}

uint64_t ExtentAllocator::largest_free() const {
  if (first_bits_ == 0) return 0;
  int first = std::bit_width(first_bits_) - 1;
  int second = std::bit_width(second_bits_[first]) - 1;
  uint64_t largest = 0;
  for (uint32_t i = heads_[first][second]; i != kNone; i = records_[i].next_free) {
    largest = std::max(largest, records_[i].size());
  }
  return largest;
}

bool ExtentAllocator::Consistent() const {
  if (capacity_ == 0) return records_.empty();
  std::vector<bool> spare(records_.size());
  for (uint32_t i : spare_) spare[i] = true;
  uint32_t at = kNone;
  for (uint32_t i = 0; i < records_.size(); ++i) {
    if (!spare[i] && records_[i].below == kNone) {
      if (at != kNone) return false;  // two lowest blocks
      at = i;
    }
  }
  uint64_t offset = 0, used = 0, objects = 0;
  bool below_free = false;
  for (uint32_t below = kNone; at != kNone; below = at, at = records_[at].above) {
    const Record& r = records_[at];
    if (r.offset != offset || r.size() == 0 || r.below != below || (r.free() && below_free)) return false;
    if (r.free()) {
      Class c = ClassOf(r.size());
      bool listed = false;
      for (uint32_t i = heads_[c.first][c.second]; i != kNone; i = records_[i].next_free) listed |= i == at;
      if (!listed || !(second_bits_[c.first] >> c.second & 1) || !(first_bits_ >> c.first & 1)) return false;
    } else {
      used += r.size() + kRecordBytes;
      ++objects;
    }
    below_free = r.free();
    offset += r.size();
  }
  return offset == capacity_ && used == used_ && objects == objects_;
}

}  // namespace quire::store

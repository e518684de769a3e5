// Who owns which bytes of an arena: a two-level segregated fit allocator (TLSF) whose records stand outside
// the memory it hands out, so that it serves host and device arenas alike.
//
// Invariants, true between any two calls:
//  - the blocks partition [0, capacity): each begins where its neighbour below ends;
//  - no two free blocks are neighbours;
//  - every free block is in the list of its size class, and a bit says which lists are not empty.
// So Allocate, Free and Shrink are O(1): two bit scans and a handful of links. Allocate first looks at up to
// kExactTries blocks of the size's own class, so that a hole left by an object of the same size is always
// found where all objects are alike.
//
// What an object costs: its size rounded up to kGranule, at most 31 bytes, and a record of 32 bytes. Both are
// in `used()`.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <vector>

namespace quire::store {

// Not thread-safe.
class ExtentAllocator {
 public:
  static constexpr uint64_t kGranule = 32;      // offsets and sizes are multiples of it
  static constexpr uint64_t kRecordBytes = 32;  // of host memory beside an object
  using Handle = uint32_t;

  explicit ExtentAllocator(uint64_t capacity);

  // None if no free block is large enough. REQUIRES: bytes > 0.
  std::optional<Handle> Allocate(uint64_t bytes);
  void Free(Handle handle);
  // Gives the end of a block back, so that it holds `bytes` (0 < bytes ≤ what it was allocated with).
  void Shrink(Handle handle, uint64_t bytes);

  uint64_t offset(Handle handle) const { return records_[handle].offset; }
  uint64_t size(Handle handle) const { return records_[handle].size(); }  // rounded
  // What a block of this size counts for: rounding and record included.
  static uint64_t Charge(uint64_t bytes) { return Round(bytes) + kRecordBytes; }

  uint64_t capacity() const { return capacity_; }
  uint64_t used() const { return used_; }  // sum of charges
  uint64_t objects() const { return objects_; }
  uint64_t largest_free() const;

  // For gathering room: cursors that go up through memory. kSweep passes all of it, again and again; kCut
  // stands where Shrink last left a hole.
  enum class Cursor : uint8_t { kSweep, kCut };
  // The free block at or above a cursor, which then stands there; none: there is none up to the end, and it
  // stands at the bottom again.
  std::optional<Handle> NextFree(Cursor cursor);
  void SkipTo(Cursor cursor, Handle handle) { At(cursor) = handle; }
  void SkipToBottom(Cursor cursor) { At(cursor) = bottom_; }
  // Down from hole to hole while one object stands between them, over at most `most` objects.
  void StepDown(Cursor cursor, int most);
  std::optional<Handle> Above(Handle handle) const;  // its neighbour; none: the end
  // A free block and the object above it change places (the caller moves the bytes); then the free block
  // takes in what is free above it. REQUIRES: `object` is above `free`.
  void SlideDown(Handle free, Handle object);

  // A neighbour of a free block that has a place elsewhere: with it gone, the free block grows to `joined`.
  struct Move {
    Handle object, place;
    uint64_t joined;
  };
  // What could be moved to get a free block of `bytes` at once; the largest free blocks are looked at, and
  // `movable` says which objects may move. O(1).
  template <typename Movable>
  std::optional<Move> MoveFor(uint64_t bytes, const Movable& movable) const {
    for (Handle free : LargestBelow(bytes)) {
      for (bool up : {true, false}) {
        std::optional<Move> move = MoveOff(free, up);
        if (move && move->joined >= bytes && movable(move->object)) return move;
      }
    }
    return std::nullopt;
  }
  // The object is at the lower end of `place` afterwards (the caller moves the bytes; the two do not
  // overlap).
  void Relocate(Handle object, Handle place);

  // Walks everything and tells whether the invariants hold. For tests; O(n).
  bool Consistent() const;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr int kSecondBits =
      5;  // 32 lists within a power of two: a block is at most 1/32 larger than asked for
  static constexpr int kSecond = 1 << kSecondBits;
  static constexpr int kFirst = 64 - kSecondBits;
  static constexpr int kExactTries = 16;
  static constexpr size_t kMovesWeighed = 32;  // free blocks looked at for MoveFor

  struct Record {
    uint64_t offset = 0;
    uint64_t size_free = 0;                 // size, a multiple of kGranule; bit 0: free
    uint32_t below = kNone, above = kNone;  // neighbours in memory
    uint32_t previous_free = kNone, next_free = kNone;
    uint64_t size() const { return size_free & ~uint64_t{1}; }
    bool free() const { return size_free & 1; }
  };
  struct Class {
    int first, second;
  };

  static uint64_t Round(uint64_t bytes) { return (bytes + kGranule - 1) / kGranule * kGranule; }
  static Class ClassOf(uint64_t size);
  uint32_t& At(Cursor cursor) { return cursors_[static_cast<size_t>(cursor)]; }
  uint32_t NewRecord();
  void PushFree(uint32_t index);
  void RemoveFree(uint32_t index);
  // None of `beside`'s neighbours, if that is given.
  std::optional<uint32_t> FindFree(uint64_t size, uint32_t beside = kNone) const;
  std::vector<Handle> LargestBelow(uint64_t bytes) const;
  std::optional<Move> MoveOff(Handle free, bool up) const;
  void Release(uint32_t index);                    // makes it free, joined with what is free beside it
  void SplitAbove(uint32_t index, uint64_t size);  // what is above `size` becomes a free block
  void MergeAbove(uint32_t index);                 // takes in the neighbour above, if that is free

  std::vector<Record> records_;
  std::vector<uint32_t> spare_;  // unused entries of records_
  uint64_t first_bits_ = 0;
  std::array<uint32_t, kFirst> second_bits_{};
  std::array<std::array<uint32_t, kSecond>, kFirst> heads_;
  uint64_t capacity_ = 0, used_ = 0, objects_ = 0;
  uint32_t bottom_ = 0;  // the block at offset 0
  std::array<uint32_t, 2> cursors_{};
};

}  // namespace quire::store

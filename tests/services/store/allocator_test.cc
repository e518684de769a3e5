// The arena allocator against a model that keeps its extents in an ordered map.
#include "services/store/engine/allocator.h"

#include <map>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace quire::store {
namespace {

constexpr uint64_t kGranule = ExtentAllocator::kGranule;

TEST(ExtentAllocator, TheWholeArenaIsOneObject) {
  ExtentAllocator arena(1 << 20);
  auto all = arena.Allocate(1 << 20);
  ASSERT_TRUE(all);
  EXPECT_EQ(arena.offset(*all), 0u);
  EXPECT_FALSE(arena.Allocate(1));
  arena.Free(*all);
  EXPECT_EQ(arena.used(), 0u);
  EXPECT_EQ(arena.largest_free(), uint64_t{1} << 20);
  EXPECT_FALSE(arena.Allocate((1 << 20) + 1));
  EXPECT_FALSE(arena.Allocate(UINT64_MAX));
  EXPECT_TRUE(arena.Consistent());
}

TEST(ExtentAllocator, AnObjectLosesAtMost64Bytes) {
  for (uint64_t bytes = 1; bytes < 300; ++bytes) {
    ExtentAllocator arena(1 << 16);
    ASSERT_TRUE(arena.Allocate(bytes));
    EXPECT_GE(arena.used(), bytes + ExtentAllocator::kRecordBytes);
    EXPECT_LE(arena.used(), bytes + 64) << bytes;
    EXPECT_EQ(arena.used(), ExtentAllocator::Charge(bytes));
  }
}

TEST(ExtentAllocator, AHoleIsTakenByAnObjectOfItsSize) {
  // Sizes that are not at the edge of a size class: the hole's class does not promise that everything in it
  // fits.
  for (uint64_t size : {uint64_t{1000}, uint64_t{37'777}, uint64_t{123'456}, uint64_t{1'000'000}}) {
    ExtentAllocator arena(8 << 20);
    std::vector<ExtentAllocator::Handle> handles;
    while (auto handle = arena.Allocate(size)) handles.push_back(*handle);
    EXPECT_LT(arena.capacity() - handles.size() * ((size + kGranule - 1) / kGranule * kGranule),
              size + kGranule);
    std::mt19937 random(1);
    for (int i = 0; i < 200; ++i) {
      auto& handle = handles[random() % handles.size()];
      arena.Free(handle);
      auto again = arena.Allocate(size);
      ASSERT_TRUE(again);
      handle = *again;
    }
    EXPECT_TRUE(arena.Consistent());
  }
}

TEST(ExtentAllocator, ShrinkGivesTheEndBack) {
  ExtentAllocator arena(1 << 16);
  auto a = arena.Allocate(40'000), b = arena.Allocate(20'000);
  ASSERT_TRUE(a && b);
  EXPECT_FALSE(arena.Allocate(10'000));
  arena.Shrink(*a, 30'000);
  EXPECT_EQ(arena.used(), ExtentAllocator::Charge(30'000) + ExtentAllocator::Charge(20'000));
  auto c = arena.Allocate(9'900);
  ASSERT_TRUE(c);
  EXPECT_EQ(arena.offset(*c), arena.offset(*a) + arena.size(*a));
  EXPECT_TRUE(arena.Consistent());
}

TEST(ExtentAllocator, AnObjectBesideAHoleMovesIntoAnother) {
  // Holes of one object's size here and there: with the object beside one of them in another, two fit.
  constexpr uint64_t kBytes = 3200, kObjects = 20;
  ExtentAllocator arena(kObjects * kBytes);
  std::vector<ExtentAllocator::Handle> objects;
  for (uint64_t i = 0; i < kObjects; ++i) objects.push_back(*arena.Allocate(kBytes));
  auto movable = [&](ExtentAllocator::Handle handle) { return handle == objects[6]; };
  arena.Free(objects[7]);
  EXPECT_FALSE(arena.MoveFor(2 * kBytes, movable)) << "there is no other hole";
  arena.Free(objects[15]);
  EXPECT_FALSE(arena.Allocate(2 * kBytes));
  EXPECT_FALSE(arena.MoveFor(2 * kBytes, [](auto) { return false; }));
  EXPECT_FALSE(arena.MoveFor(2 * kBytes + 1, movable)) << "one move does not make that";
  auto move = arena.MoveFor(2 * kBytes, movable);
  ASSERT_TRUE(move);
  EXPECT_EQ(move->object, objects[6]);
  EXPECT_EQ(arena.offset(move->place), 15 * kBytes);
  arena.Relocate(move->object, move->place);
  EXPECT_EQ(arena.offset(objects[6]), 15 * kBytes);
  EXPECT_TRUE(arena.Consistent());
  auto wide = arena.Allocate(2 * kBytes);
  ASSERT_TRUE(wide);
  EXPECT_EQ(arena.offset(*wide), 6 * kBytes);
  EXPECT_EQ(arena.largest_free(), 0u);
}

struct Live {
  ExtentAllocator::Handle handle;
  uint64_t bytes;
};

// Makes the move that the arena proposes for `bytes`, if any, and checks what it does.
void MoveAside(ExtentAllocator& arena, std::map<uint64_t, Live>& model, uint64_t bytes) {
  std::map<ExtentAllocator::Handle, uint64_t> at;
  for (const auto& [offset, live] : model) at[live.handle] = offset;
  auto move = arena.MoveFor(bytes, [&](auto handle) { return at.contains(handle); });
  if (!move) return;
  uint64_t from = at.at(move->object), to = arena.offset(move->place), size = arena.size(move->object);
  ASSERT_GE(arena.size(move->place), size);
  ASSERT_TRUE(to + size < from || from + size < to) << "the place is beside the object";
  arena.Relocate(move->object, move->place);
  ASSERT_EQ(arena.offset(move->object), to);
  ASSERT_EQ(arena.size(move->object), size);
  ASSERT_GE(arena.largest_free(), bytes);
  auto node = model.extract(from);
  node.key() = to;
  model.insert(std::move(node));
  ASSERT_TRUE(arena.Consistent());
}

// Every operation is checked: no overlap, within the arena, exact charge; the invariants now and then.
void Churn(uint32_t seed, uint64_t capacity, uint64_t least, uint64_t most, int steps) {
  std::mt19937_64 random(seed);
  ExtentAllocator arena(capacity);
  std::map<uint64_t, Live> model;  // by offset
  uint64_t charged = 0;
  auto any = [&] { return std::next(model.begin(), static_cast<ptrdiff_t>(random() % model.size())); };
  for (int step = 0; step < steps; ++step) {
    uint64_t choice = random() % 10;
    if (choice < 6 || model.empty()) {
      uint64_t bytes = least + random() % (most - least + 1);
      auto handle = arena.Allocate(bytes);
      if (!handle) {
        ASSERT_LE(arena.largest_free(), bytes + bytes / 16 + kGranule)
            << "a free block that clearly fits was not found";
        ASSERT_NO_FATAL_FAILURE(MoveAside(arena, model, bytes));
        continue;
      }
      uint64_t begin = arena.offset(*handle), end = begin + arena.size(*handle);
      ASSERT_GE(end - begin, bytes);
      ASSERT_LT(end - begin, bytes + kGranule);
      ASSERT_EQ(begin % kGranule, 0u);
      ASSERT_LE(end, arena.capacity());
      auto next = model.lower_bound(begin);
      ASSERT_TRUE(next == model.end() || next->first >= end);
      ASSERT_TRUE(next == model.begin() ||
                  std::prev(next)->first + arena.size(std::prev(next)->second.handle) <= begin);
      model[begin] = {*handle, bytes};
      charged += ExtentAllocator::Charge(bytes);
    } else if (choice < 9) {
      auto victim = any();
      arena.Free(victim->second.handle);
      charged -= ExtentAllocator::Charge(victim->second.bytes);
      model.erase(victim);
    } else {
      Live& live = any()->second;
      uint64_t bytes = 1 + random() % live.bytes;
      arena.Shrink(live.handle, bytes);
      charged -= ExtentAllocator::Charge(live.bytes) - ExtentAllocator::Charge(bytes);
      live.bytes = bytes;
    }
    ASSERT_EQ(arena.used(), charged);
    ASSERT_EQ(arena.objects(), model.size());
    if (step % 97 == 0) {
      ASSERT_TRUE(arena.Consistent()) << step;
    }
  }
  for (const auto& [offset, live] : model) arena.Free(live.handle);
  EXPECT_EQ(arena.largest_free(), arena.capacity());
  EXPECT_TRUE(arena.Consistent());
}

TEST(ExtentAllocator, BehavesAsItsModelDoes) {
  for (uint32_t seed = 0; seed < 8; ++seed) {
    Churn(seed, 1 << 20, 1, 5'000, 8'000);
    Churn(seed, 1 << 20, 1, 200'000, 2'000);
    Churn(seed, (1 << 20) + 17, 30, 40, 4'000);
  }
}

TEST(ExtentAllocator, LittleIsLostToFragmentation) {
  // Mixed sizes, an arena kept full by evicting at random, as long as it takes to write it a hundred times
  // over.
  std::mt19937_64 random(7);
  constexpr uint64_t kCapacity = 64 << 20;
  ExtentAllocator arena(kCapacity);
  std::vector<ExtentAllocator::Handle> live;
  double full = 0;
  int samples = 0;
  for (uint64_t written = 0; written < 100 * kCapacity;) {
    uint64_t bytes = 20'000 + random() % 60'000;
    auto handle = arena.Allocate(bytes);
    if (handle) {
      live.push_back(*handle);
      written += bytes;
      continue;
    }
    full += static_cast<double>(arena.used()) / kCapacity;
    ++samples;
    std::swap(live[random() % live.size()], live.back());
    arena.Free(live.back());
    live.pop_back();
  }
  EXPECT_GT(full / samples, 0.9);
  EXPECT_TRUE(arena.Consistent());
}

}  // namespace
}  // namespace quire::store

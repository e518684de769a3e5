// What goes when room is needed, and what stays.
#include <thread>

#include "gmock/gmock.h"
#include "services/store/engine/host_tier.h"
#include "tests/services/store/backends.h"
#include "tests/services/store/sample_chain.h"

namespace quire::store {
namespace {

using absl::StatusCode;

// A store with room for a number of blocks of SampleLayout and a clock that the test moves.
class Eviction : public testing::Test {
 protected:
  Eviction() {
    LocalStoreOptions options = SmallStore(1 << 20);
    options.now_ms = [this] { return now_ms_; };
    store_ = *LocalStore::Create(options);
  }
  // Raw blocks of 32 KiB: nothing here depends on what the bytes mean.
  static SampleChain Chain(uint32_t blocks, uint32_t seed) {
    return SampleChain(SampleLayout(1), blocks, "raw", seed);
  }
  uint32_t Prefix(const SampleChain& chain) { return StoredPrefix(*store_, chain); }
  // How many blocks fit.
  static uint32_t Capacity() {
    ExtentAllocator arena(1 << 20);
    uint64_t bytes = Chain(1, 99).objects[0].size();
    uint32_t count = 0;
    while (arena.Allocate(bytes)) ++count;
    return count;
  }

  int64_t now_ms_ = 1000;
  std::shared_ptr<LocalStore> store_;
};

TEST_F(Eviction, TheLeastRecentlyUsedChainGoesFirstFromItsEnd) {
  uint32_t n = Capacity() / 3;
  ASSERT_GE(n, 3u);
  SampleChain a = Chain(n, 1), b = Chain(n, 2), c = Chain(n, 3), d = Chain(4, 4);
  ASSERT_TRUE(PutChain(*store_, a).ok());
  ASSERT_TRUE(PutChain(*store_, b).ok());
  ASSERT_TRUE(PutChain(*store_, c).ok());
  EXPECT_EQ(Prefix(a), n);  // a is now the most recently used
  ASSERT_EQ(store_->Stats()->blocks_evicted, 0u);
  ASSERT_TRUE(PutChain(*store_, d).ok());
  EXPECT_GT(store_->Stats()->blocks_evicted, 0u);
  EXPECT_EQ(Prefix(a), n);
  EXPECT_LT(Prefix(b), n);
  EXPECT_GT(Prefix(b), 0u);  // from its end
  EXPECT_EQ(Prefix(c), n);
}

TEST_F(Eviction, ChildrenGoBeforeParentsUntilNothingIsLeft) {
  uint32_t n = Capacity();
  SampleChain old = Chain(n, 1);
  ASSERT_TRUE(PutChain(*store_, old).ok());
  for (uint32_t left = n; left > 0; --left) {
    ASSERT_TRUE(PutChain(*store_, Chain(1, 100 + left)).ok());
    Gotten gotten = GetAll(*store_, old.ns(), old.identities);
    bool gone = false;
    for (StatusCode miss : gotten.misses) {
      gone |= miss == StatusCode::kNotFound;
      EXPECT_EQ(miss == StatusCode::kNotFound, gone) << "a block whose parent is gone";
    }
  }
}

TEST_F(Eviction, LeasedBlocksStayUntilTheirLeaseEnds) {
  uint32_t n = Capacity();
  SampleChain held = Chain(n, 1);
  ASSERT_TRUE(PutChain(*store_, held).ok());
  LookupOptions lease;
  lease.lease = std::chrono::milliseconds(500);
  ASSERT_EQ(store_->Lookup(held.ns(), held.keys(), lease)->prefix_blocks, n);
  SampleChain other = Chain(2, 2);
  absl::Status full = PutChain(*store_, other);
  EXPECT_EQ(full.code(), StatusCode::kResourceExhausted) << full;
  EXPECT_EQ(Prefix(held), n);
  EXPECT_EQ(store_->Stats()->put_sessions, 0u);
  now_ms_ += 499;
  EXPECT_EQ(PutChain(*store_, other).code(), StatusCode::kResourceExhausted);
  now_ms_ += 1;
  EXPECT_TRUE(PutChain(*store_, other).ok());
  EXPECT_LT(Prefix(held), n);
}

TEST_F(Eviction, ABlockWhoseChildIsLeasedStays) {
  uint32_t n = Capacity();
  SampleChain chain = Chain(n, 1);
  ASSERT_TRUE(PutChain(*store_, chain).ok());
  LookupOptions lease;
  lease.lease = std::chrono::milliseconds(500);
  std::vector<Digest> last = {chain.identities.back().key};
  ASSERT_EQ(store_->Lookup(chain.ns(), last, lease)->prefix_blocks, 1u);
  EXPECT_EQ(PutChain(*store_, Chain(1, 2)).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(Prefix(chain), n);
}

TEST_F(Eviction, BlocksBeingReadStay) {
  uint32_t n = Capacity();
  ASSERT_GE(n, 4u);
  std::vector<SampleChain> singles;
  for (uint32_t i = 0; i < n; ++i) singles.push_back(Chain(1, 10 + i));
  for (const SampleChain& single : singles) ASSERT_TRUE(PutChain(*store_, single).ok());
  // While the oldest block is handed out, everything else is evicted around it.
  std::vector<uint8_t> seen;
  GetSink sink;
  sink.on_block = [&](uint32_t, Bytes object) {
    for (uint32_t i = 0; i < 2 * n; ++i) EXPECT_TRUE(PutChain(*store_, Chain(1, 1000 + i)).ok());
    EXPECT_EQ(Prefix(singles[0]), 1u);
    EXPECT_EQ(Prefix(singles[1]), 0u);
    seen.assign(object.begin(), object.end());
    return absl::OkStatus();
  };
  sink.on_miss = [](uint32_t, const absl::Status& why) { return why; };
  ASSERT_TRUE(store_->Get(singles[0].ns(), singles[0].identities, {}, sink).ok());
  EXPECT_EQ(seen, singles[0].objects[0]);
}

TEST_F(Eviction, ABlockDeletedWhileReadKeepsItsBytesUntilTheReaderIsDone) {
  SampleChain chain = Chain(1, 1);
  ASSERT_TRUE(PutChain(*store_, chain).ok());
  GetSink sink;
  sink.on_block = [&](uint32_t, Bytes object) {
    EXPECT_EQ(*store_->Delete(chain.ns(), chain.keys(), false), 1u);
    EXPECT_GT(UsedBytes(*store_), 0u);
    EXPECT_TRUE(std::equal(object.begin(), object.end(), chain.objects[0].begin(), chain.objects[0].end()));
    return absl::OkStatus();
  };
  sink.on_miss = [](uint32_t, const absl::Status& why) { return why; };
  EXPECT_TRUE(store_->Get(chain.ns(), chain.identities, {}, sink).ok());
  EXPECT_EQ(UsedBytes(*store_), 0u);
}

TEST_F(Eviction, AChainLongerThanTheArenaKeepsItsBeginning) {
  uint32_t n = Capacity();
  SampleChain chain = Chain(n + 5, 1);
  ASSERT_TRUE(store_->RegisterLayout(chain.layout).ok());
  uint32_t stored = 0;
  for (uint32_t i = 0; i < n + 5; ++i) {  // a session a block, as a worker offloads them
    auto session = store_->BeginPut(chain.ns(), {{{chain.identities[i], chain.objects[i].size()}}}, {});
    if (!session.ok()) {
      EXPECT_EQ(session.status().code(), StatusCode::kFailedPrecondition);
      break;
    }
    auto committed = WriteAndCommit(**session, 0, chain.objects[i]);
    EXPECT_TRUE(committed.ok() || absl::IsResourceExhausted(committed.status())) << committed.status();
    stored += committed.ok();
  }
  EXPECT_EQ(stored, n);
  EXPECT_EQ(Prefix(chain), n);
}

TEST_F(Eviction, UncommittedBlocksAreNotEvictedAndNotLost) {
  uint32_t n = Capacity();
  SampleChain chain = Chain(1, 1);
  ASSERT_TRUE(store_->RegisterLayout(chain.layout).ok());
  auto session = *store_->BeginPut(chain.ns(), chain.announces(), {});
  ASSERT_TRUE(session->Write(0, 0, chain.objects[0]).ok());
  for (uint32_t i = 0; i < 2 * n; ++i) ASSERT_TRUE(PutChain(*store_, Chain(1, 100 + i)).ok());
  EXPECT_TRUE(session->Commit(0).ok());
  EXPECT_EQ(Prefix(chain), 1u);
}

TEST_F(Eviction, ThreadsThatOverfillTheStoreNeverSeeAWrongByte) {
  uint32_t n = Capacity();
  std::vector<SampleChain> chains;
  for (uint32_t i = 0; i < 6; ++i) chains.push_back(Chain(n / 2, 50 + i));
  ASSERT_TRUE(store_->RegisterLayout(chains[0].layout).ok());
  std::atomic<int> wrong{0};
  auto work = [&](uint32_t seed) {
    std::mt19937 random(seed);
    for (int round = 0; round < 25; ++round) {
      const SampleChain& chain = chains[random() % chains.size()];
      if (random() % 2 == 0) {
        absl::Status put = PutChain(*store_, chain);
        if (!put.ok() && put.code() != StatusCode::kFailedPrecondition &&
            put.code() != StatusCode::kResourceExhausted) {
          ADD_FAILURE() << put;
          ++wrong;
        }
      } else {
        Gotten gotten = GetAll(*store_, chain.ns(), chain.identities);
        for (size_t i = 0; i < chain.objects.size(); ++i) {
          if (gotten.misses[i] == StatusCode::kOk && gotten.objects[i] != chain.objects[i]) ++wrong;
        }
      }
    }
  };
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < 4; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(store_->Stats()->blocks_evicted, 0u);
  EXPECT_EQ(store_->Stats()->checksum_failures, 0u);
  for (const SampleChain& chain : chains) ASSERT_TRUE(store_->Delete(chain.ns(), chain.keys(), true).ok());
  EXPECT_EQ(UsedBytes(*store_), 0u);
  EXPECT_EQ(store_->Stats()->tiers[0].blocks, 0u);
}

TEST(HostTier, SaysWhyItCannotBeReserved) {
  absl::Status huge = HostTier::Create(uint64_t{1} << 60, false).status();
  EXPECT_EQ(huge.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(huge.message()), testing::HasSubstr("1152921504606846976"));
  EXPECT_EQ(HostTier::Create(1000, false).status().code(), StatusCode::kInvalidArgument);
}

// Objects that lost their ends leave holes that together make room, around what is pinned and what is being
// written.
TEST(HostTier, GathersRoomFromHolesWithoutTouchingAByteAnyoneHolds) {
  auto tier = *HostTier::Create(1 << 20, false);
  constexpr uint64_t kWhole = 20'000, kCut = 13'000;
  auto byte = [](size_t object, uint64_t at) { return static_cast<uint8_t>(object * 31 + at * 7); };
  std::vector<std::shared_ptr<TierObject>> objects;
  while (true) {
    auto object = tier->Stage(kWhole);
    if (!object.ok()) break;
    MutableBytes bytes = (*object)->Fill();
    for (uint64_t at = 0; at < kWhole; ++at) bytes[at] = byte(objects.size(), at);
    objects.push_back(*std::move(object));
  }
  ASSERT_GT(objects.size(), 40u);
  PinnedBytes pinned = *objects[20]->Read();
  const uint8_t* where = pinned.bytes.data();
  for (size_t i = 0; i < objects.size(); ++i) {
    if (i == 30) continue;  // still being written
    objects[i]->Seal();
    if (i != 20) objects[i]->Shrink(kCut);
  }
  std::vector<std::shared_ptr<TierObject>> more;
  for (auto object = tier->Stage(kWhole); object.ok(); object = tier->Stage(kWhole)) {
    (*object)->Seal();
    more.push_back(*std::move(object));
  }
  // Of the 7,000 bytes that each gave back, nearly all are in use again.
  EXPECT_GE(more.size(), objects.size() * 7 / 20 - 4);
  for (size_t i = 0; i < objects.size(); ++i) {
    Bytes bytes = objects[i]->Read()->bytes;
    ASSERT_EQ(bytes.size(), i == 20 || i == 30 ? kWhole : kCut);
    for (uint64_t at = 0; at < bytes.size(); ++at) ASSERT_EQ(bytes[at], byte(i, at)) << i;
  }
  EXPECT_EQ(objects[20]->Read()->bytes.data(), where);
}

// Room is gathered where neighbours were cut, whichever of them first: what stands elsewhere is not moved,
// though there are holes, too.
TEST(HostTier, GathersRoomFirstWhereNeighboursWereCut) {
  constexpr uint64_t kWhole = 20'000, kCut = 13'500;
  for (bool upwards : {true, false}) {
    auto tier = *HostTier::Create(1 << 20, false);
    std::vector<std::shared_ptr<TierObject>> objects;
    for (auto object = tier->Stage(kWhole); object.ok(); object = tier->Stage(kWhole)) {
      (*object)->Seal();
      objects.push_back(*std::move(object));
    }
    for (size_t i : {3, 45, 49}) objects[i]->Shrink(kWhole - 1000);
    std::vector<const uint8_t*> before;
    for (const auto& object : objects) before.push_back(object->Read()->bytes.data());
    for (size_t i = 20; i < 24; ++i) objects[upwards ? i : 43 - i]->Shrink(kCut);
    ASSERT_TRUE(tier->Stage(kWhole).ok());
    for (size_t i = 0; i < objects.size(); ++i) {
      bool between = i > 20 && i < 24;
      EXPECT_EQ(objects[i]->Read()->bytes.data() == before[i], !between) << i << (upwards ? " up" : " down");
    }
  }
}

TEST(HostTier, APrefaultedArenaServes) {
  auto tier = *HostTier::Create(2 << 20, /*prefault=*/true);
  auto object = *tier->Stage(1 << 20);
  EXPECT_EQ(object->Write((1 << 20) - 1, Bytes(reinterpret_cast<const uint8_t*>("ab"), 2)).code(),
            StatusCode::kOutOfRange);
  EXPECT_EQ(tier->Stage(2 << 20).status().code(), StatusCode::kResourceExhausted);
  object.reset();
  EXPECT_EQ(tier->used_bytes(), 0u);
}

}  // namespace
}  // namespace quire::store

// Where blocks go and come back from: bits lost before blocks, the disk below the arena, restarts, quotas,
// times to live.
#include <thread>

#include "gmock/gmock.h"
#include "services/store/disk/disk_tier.h"
#include "services/store/engine/allocator.h"
#include "tests/services/store/backends.h"
#include "tests/services/store/sample_chain.h"
#include "tests/services/store/temp_folder.h"

namespace quire::store {
namespace {

using absl::StatusCode;
using std::chrono::milliseconds;
constexpr milliseconds kPatience{20'000};

class Placing : public testing::Test {
 protected:
  LocalStoreOptions Options(uint64_t host_bytes, bool with_disk) {
    LocalStoreOptions options = SmallStore(host_bytes);
    options.now_ms = [this] { return now_ms_; };
    options.now_unix_ms = [this] { return now_ms_; };
    options.enable_faults = true;
    options.faults = std::make_shared<FaultPoints>();
    if (with_disk) options.lower.push_back(Disk(options.faults));
    return options;
  }
  std::shared_ptr<DiskTier> Disk(std::shared_ptr<FaultPoints> faults, uint64_t bytes = 64 << 20) {
    DiskTierOptions disk;
    disk.folder = folder_.path() + "/disk";
    disk.capacity_bytes = bytes;
    disk.faults = std::move(faults);
    return *DiskTier::Open(disk);
  }
  static TierStats TierOf(const StoreStats& stats, Tier tier) {
    for (const TierStats& t : stats.tiers) {
      if (t.tier == tier) return t;
    }
    ADD_FAILURE() << TierName(tier);
    return stats.tiers.front();
  }
  static std::vector<BlockState> States(KvStore& store, const SampleChain& chain) {
    LookupOptions all;
    all.all = true;
    return store.Lookup(chain.ns(), chain.keys(), all)->blocks;
  }
  // Every block that is handed out is a prefix of what was stored, at a level's end.
  static void ExpectPrefixes(KvStore& store, const SampleChain& chain) {
    Gotten gotten = GetAll(store, chain.ns(), chain.identities);
    ASSERT_TRUE(gotten.status.ok()) << gotten.status;
    for (size_t i = 0; i < chain.objects.size(); ++i) {
      ASSERT_EQ(gotten.misses[i], StatusCode::kOk) << i;
      ASSERT_LE(gotten.objects[i].size(), chain.objects[i].size());
      EXPECT_TRUE(std::equal(gotten.objects[i].begin(), gotten.objects[i].end(), chain.objects[i].begin()))
          << i;
    }
  }

  int64_t now_ms_ = 1'000'000;
  TempFolder folder_;
};

TEST_F(Placing, BitsGoBeforeBlocks) {
  LocalStoreOptions options = Options(1 << 20, false);
  options.floor_levels = 1;
  options.placement.hot_share = 0;
  auto store = *LocalStore::Create(options);
  uint64_t whole = SampleChain(SampleLayout(), 1).objects[0].size();
  uint32_t fit = static_cast<uint32_t>((1 << 20) / ExtentAllocator::Charge(whole));
  SampleChain first(SampleLayout(), fit * 2 / 3, "tq:k4v4", 1),
      second(SampleLayout(), fit * 2 / 3, "tq:k4v4", 2);
  ASSERT_TRUE(PutChain(*store, first).ok());
  ASSERT_TRUE(PutChain(*store, second).ok());
  StoreStats stats = *store->Stats();
  EXPECT_EQ(stats.blocks_evicted, 0u);
  EXPECT_GT(stats.levels_dropped, 0u);
  for (const SampleChain* chain : {&first, &second}) {
    EXPECT_EQ(StoredPrefix(*store, *chain), chain->keys().size());
    ExpectPrefixes(*store, *chain);
  }
  // Nothing is cut below the floor; then blocks go.
  SampleChain more(SampleLayout(), fit / 2, "tq:k4v4", 3);
  for (uint32_t seed = 10; seed < 14; ++seed) {
    ASSERT_TRUE(PutChain(*store, SampleChain(SampleLayout(), fit / 2, "tq:k4v4", seed)).ok());
  }
  ASSERT_TRUE(PutChain(*store, more).ok());
  EXPECT_GT(store->Stats()->blocks_evicted, 0u);
  for (const BlockState& state : States(*store, more))
    EXPECT_GE(state.levels, state.state == BlockState::kHit ? 1u : 0u);
}

TEST_F(Placing, TheColdestLoseTheirBitsFirstAndTheHotShareKeepsThem) {
  LocalStoreOptions options = Options(1 << 20, false);
  options.floor_levels = 2;
  options.placement.hot_share = 0.5;
  auto store = *LocalStore::Create(options);
  uint64_t whole = SampleChain(SampleLayout(), 1).objects[0].size();
  uint32_t fit = static_cast<uint32_t>((1 << 20) / ExtentAllocator::Charge(whole));
  SampleChain cold(SampleLayout(), fit / 2, "tq:k4v4", 1), hot(SampleLayout(), fit / 2, "tq:k4v4", 2);
  ASSERT_TRUE(PutChain(*store, cold).ok());
  ASSERT_TRUE(PutChain(*store, hot).ok());
  ASSERT_EQ(StoredPrefix(*store, hot), fit / 2);
  ASSERT_TRUE(PutChain(*store, SampleChain(SampleLayout(), fit / 4, "tq:k4v4", 3)).ok());
  uint32_t cut = 0;
  for (const BlockState& state : States(*store, cold)) cut += state.levels == 2;
  EXPECT_GT(cut, 0u) << store->Stats()->levels_dropped << " levels dropped, "
                     << store->Stats()->blocks_evicted << " evicted, fit " << fit << ", " << UsedBytes(*store)
                     << " used";
  for (const BlockState& state : States(*store, hot)) EXPECT_EQ(state.levels, 3u);
}

TEST_F(Placing, LeasedAndPinnedBlocksKeepTheirBits) {
  LocalStoreOptions options = Options(1 << 20, false);
  options.floor_levels = 1;
  options.placement.hot_share = 0;
  auto store = *LocalStore::Create(options);
  SampleChain pinned(SampleLayout(), 8, "tq:k4v4", 1), leased(SampleLayout(), 8, "tq:k4v4", 2);
  ASSERT_TRUE(PutChain(*store, pinned).ok());
  ASSERT_TRUE(PutChain(*store, leased).ok());
  ASSERT_EQ(*store->Pin(pinned.ns(), pinned.keys()), 8u);
  LookupOptions lease;
  lease.lease = milliseconds(1000);
  ASSERT_TRUE(store->Lookup(leased.ns(), leased.keys(), lease).ok());
  for (uint32_t seed = 10; seed < 60; ++seed) {
    ASSERT_TRUE(PutChain(*store, SampleChain(SampleLayout(), 4, "tq:k4v4", seed)).ok());
  }
  for (const SampleChain* chain : {&pinned, &leased}) {
    for (const BlockState& state : States(*store, *chain)) {
      EXPECT_EQ(state.state, BlockState::kHit);
      EXPECT_EQ(state.levels, 3u);
    }
  }
}

TEST_F(Placing, WhatTheArenaCannotHoldIsOnTheDiskAndComesBackWhole) {
  auto store = *LocalStore::Create(Options(1 << 20, true));
  std::vector<SampleChain> chains;
  for (uint32_t seed = 0; seed < 8; ++seed) chains.emplace_back(SampleLayout(), 12, "tq:k4v4", seed);
  for (const SampleChain& chain : chains) ASSERT_TRUE(PutChain(*store, chain).ok());
  ASSERT_TRUE(store->AwaitMoved(kPatience).ok());
  StoreStats stats = *store->Stats();
  EXPECT_EQ(TierOf(stats, Tier::kDisk).blocks, 96u);
  EXPECT_LT(TierOf(stats, Tier::kHost).blocks, 96u);
  EXPECT_EQ(stats.levels_dropped, 0u);  // what the disk has is evicted, not cut
  for (const SampleChain& chain : chains) {
    EXPECT_EQ(StoredPrefix(*store, chain), 12u);
    Gotten gotten = GetAll(*store, chain.ns(), chain.identities);
    ASSERT_TRUE(gotten.status.ok());
    EXPECT_EQ(gotten.objects, chain.objects);
  }
  EXPECT_EQ(store->Stats()->checksum_failures, 0u);
}

TEST_F(Placing, APrefetchBringsBlocksToTheArena) {
  auto store = *LocalStore::Create(Options(1 << 20, true));
  SampleChain chain(SampleLayout(), 8);
  ASSERT_TRUE(PutChain(*store, chain).ok());
  for (uint32_t seed = 10; seed < 30; ++seed) {
    ASSERT_TRUE(PutChain(*store, SampleChain(SampleLayout(), 6, "tq:k4v4", seed)).ok());
  }
  ASSERT_TRUE(store->AwaitMoved(kPatience).ok());
  for (const BlockState& state : States(*store, chain)) ASSERT_EQ(state.tier, Tier::kDisk);
  EXPECT_EQ(*store->Prefetch(chain.ns(), chain.keys(), Tier::kDisk), 0u);  // it is there
  EXPECT_EQ(*store->Prefetch(chain.ns(), chain.keys(), Tier::kNone), 8u);
  ASSERT_TRUE(store->AwaitMoved(kPatience).ok());
  for (const BlockState& state : States(*store, chain)) EXPECT_EQ(state.tier, Tier::kHost);
}

TEST_F(Placing, ARestartFindsWhatTheDiskHas) {
  SampleChain chain(SampleLayout(), 10);
  {
    auto store = *LocalStore::Create(Options(16 << 20, true));
    ASSERT_TRUE(PutChain(*store, chain, "someone").ok());
    ASSERT_TRUE(store->Drain(kPatience).ok());
    EXPECT_EQ(PutChain(*store, SampleChain(SampleLayout(), 1, "raw", 9)).code(), StatusCode::kUnavailable);
  }
  auto store = *LocalStore::Create(Options(16 << 20, true));
  EXPECT_EQ(store->Lookup(chain.ns("someone"), chain.keys(), {}).status().code(), StatusCode::kNotFound);
  ASSERT_TRUE(store->RegisterLayout(chain.layout).ok());
  EXPECT_EQ(StoredPrefix(*store, chain, "someone"), 10u);
  EXPECT_EQ(StoredPrefix(*store, chain, "someone else"), 0u);
  EXPECT_EQ(*store->StoredBytes("someone"), [&] {
    uint64_t sum = 0;
    for (const auto& object : chain.objects) sum += object.size();
    return sum;
  }());
  Gotten gotten = GetAll(*store, chain.ns("someone"), chain.identities);
  EXPECT_EQ(gotten.objects, chain.objects);
  EXPECT_EQ(*store->DeleteTenant("someone"), 10u);
  EXPECT_EQ(TierOf(*store->Stats(), Tier::kDisk).used_bytes, 0u);
}

TEST_F(Placing, WriteThroughAcknowledgesWhatTheDiskHas) {
  SampleChain chain(SampleLayout(), 4);
  LocalStoreOptions options = Options(16 << 20, true);
  options.placement.write_through = true;
  auto store = *LocalStore::Create(options);
  ASSERT_TRUE(PutChain(*store, chain).ok());
  EXPECT_EQ(TierOf(*store->Stats(), Tier::kDisk).blocks, 4u);
  // A block whose write fails is not acknowledged and not there.
  ASSERT_TRUE(store->InjectFault("disk_write_error", 1000).ok());
  SampleChain other(SampleLayout(), 2, "tq:k4v4", 2);
  EXPECT_FALSE(PutChain(*store, other).ok());
  EXPECT_EQ(StoredPrefix(*store, other), 0u);
  EXPECT_EQ(StoredPrefix(*store, chain), 4u);
}

TEST_F(Placing, ReadersOfOneBlockShareItsFetch) {
  auto store = *LocalStore::Create(Options(1 << 20, true));
  SampleChain chain(SampleLayout(), 1);
  ASSERT_TRUE(PutChain(*store, chain).ok());
  for (uint32_t seed = 10; seed < 30; ++seed) {
    ASSERT_TRUE(PutChain(*store, SampleChain(SampleLayout(), 6, "tq:k4v4", seed)).ok());
  }
  ASSERT_TRUE(store->AwaitMoved(kPatience).ok());
  ASSERT_EQ(States(*store, chain)[0].tier, Tier::kDisk);
  ASSERT_TRUE(store->InjectFault("slow_tier", 1, 100).ok());
  uint64_t before = store->fetches();
  std::vector<std::thread> readers;
  std::atomic<int> right{0};
  for (int i = 0; i < 8; ++i) {
    readers.emplace_back(
        [&] { right += GetAll(*store, chain.ns(), chain.identities).objects[0] == chain.objects[0]; });
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(right, 8);
  EXPECT_EQ(store->fetches() - before, 1u);
}

TEST_F(Placing, ACorruptBlockOnDiskIsAMissAndDropped) {
  SampleChain chain(SampleLayout(), 2);
  {
    auto store = *LocalStore::Create(Options(16 << 20, true));
    ASSERT_TRUE(PutChain(*store, chain).ok());
    ASSERT_TRUE(store->Drain(kPatience).ok());
  }
  auto store = *LocalStore::Create(Options(16 << 20, true));
  ASSERT_TRUE(store->RegisterLayout(chain.layout).ok());
  ASSERT_TRUE(store->InjectFault("corrupt_byte", 1, 40'000).ok());
  Gotten gotten = GetAll(*store, chain.ns(), std::span(chain.identities).first(1));
  EXPECT_EQ(gotten.misses[0], StatusCode::kDataLoss);
  EXPECT_EQ(StoredPrefix(*store, chain), 0u);
  EXPECT_EQ(store->Stats()->checksum_failures, 1u);
}

TEST_F(Placing, ADiskThatFailsIsFencedAndTheRestGoesOn) {
  LocalStoreOptions options = Options(16 << 20, true);
  options.fence.consecutive_failures = 2;
  auto store = *LocalStore::Create(options);
  ASSERT_TRUE(store->InjectFault("disk_write_error", 1'000'000).ok());
  for (uint32_t seed = 0; seed < 6; ++seed) {
    SampleChain chain(SampleLayout(), 2, "tq:k4v4", seed);
    ASSERT_TRUE(PutChain(*store, chain).ok());
    EXPECT_EQ(GetAll(*store, chain.ns(), chain.identities).objects, chain.objects);
  }
  (void)store->AwaitMoved(kPatience);  // the disk may refuse the flush at its end
  EXPECT_GT(store->Stats()->writes_failed, 0u);
}

TEST_F(Placing, AQuotaIsStrictAndHarmsNobodyElse) {
  LocalStoreOptions options = Options(4 << 20, false);
  options.floor_levels = kMaxLevels;
  auto store = *LocalStore::Create(options);
  SampleChain theirs(SampleLayout(), 10, "tq:k4v4", 1);
  ASSERT_TRUE(PutChain(*store, theirs, "b").ok());
  uint64_t block = theirs.objects[1].size();
  ASSERT_TRUE(store->SetQuota("a", block * 7 / 2).ok());
  for (uint32_t seed = 10; seed < 16; ++seed) {  // one block a chain: its own oldest goes
    ASSERT_TRUE(PutChain(*store, SampleChain(SampleLayout(), 1, "raw", seed), "a").code() ==
                StatusCode::kResourceExhausted)
        << "a raw block is more than the quota";
    ASSERT_TRUE(PutChain(*store, SampleChain(SampleLayout(), 3, "tq:k4v4", seed), "a").ok());
    EXPECT_LE(*store->StoredBytes("a"), block * 7 / 2);
  }
  EXPECT_EQ(StoredPrefix(*store, theirs, "b"), 10u);
  // A quota full of pinned blocks takes no more.
  SampleChain kept(SampleLayout(), 3, "tq:k4v4", 15);
  ASSERT_EQ(*store->Pin(kept.ns("a"), kept.keys()), 3u);
  EXPECT_EQ(PutChain(*store, SampleChain(SampleLayout(), 2, "tq:k4v4", 99), "a").code(),
            StatusCode::kResourceExhausted);
}

TEST_F(Placing, ATenantWithinItsShareLosesNothingToAGreedyOne) {
  LocalStoreOptions options = Options(2 << 20, false);
  auto store = *LocalStore::Create(options);
  SampleChain modest(SampleLayout(), 6, "tq:k4v4", 1);
  ASSERT_TRUE(PutChain(*store, modest, "modest").ok());
  for (uint32_t seed = 10; seed < 40; ++seed) {
    ASSERT_TRUE(PutChain(*store, SampleChain(SampleLayout(), 6, "tq:k4v4", seed), "greedy").ok());
  }
  EXPECT_EQ(StoredPrefix(*store, modest, "modest"), 6u);
  LookupResult found = *store->Lookup(modest.ns("modest"), modest.keys(), {});
  for (const BlockState& state : found.blocks) EXPECT_EQ(state.levels, 3u);
}

TEST_F(Placing, BlocksWhoseTimeIsUpAreNotFoundAndGo) {
  auto store = *LocalStore::Create(Options(16 << 20, true));
  SampleChain chain(SampleLayout(), 3);
  ASSERT_TRUE(store->RegisterLayout(chain.layout).ok());
  PutOptions options;
  options.ttl = milliseconds(500);
  auto session = *store->BeginPut(chain.ns(), chain.announces(), options);
  for (uint32_t i = 0; i < 3; ++i) ASSERT_TRUE(WriteAndCommit(*session, i, chain.objects[i]).ok());
  session.reset();
  now_ms_ += 499;
  EXPECT_EQ(StoredPrefix(*store, chain), 3u);
  now_ms_ += 1;
  EXPECT_EQ(StoredPrefix(*store, chain), 0u);
  EXPECT_EQ(GetAll(*store, chain.ns(), chain.identities).misses[0], StatusCode::kNotFound);
  ASSERT_TRUE(store->AwaitMoved(kPatience).ok());
  SampleChain other(SampleLayout(), 1, "tq:k4v4", 2);
  ASSERT_TRUE(PutChain(*store, other).ok());  // room is made of what is past its time first
  ASSERT_TRUE(store->AwaitMoved(kPatience).ok());
  EXPECT_EQ(TierOf(*store->Stats(), Tier::kHost).blocks, 1u);
  EXPECT_EQ(TierOf(*store->Stats(), Tier::kDisk).blocks, 1u);
  ASSERT_TRUE(PutChain(*store, chain).ok());  // and they may come again
  EXPECT_EQ(StoredPrefix(*store, chain), 3u);
}

TEST_F(Placing, BlocksThatWerePromisedToStayOutliveTheirTime) {
  auto store = *LocalStore::Create(Options(16 << 20, true));
  SampleChain chain(SampleLayout(), 2), other(SampleLayout(), 1, "tq:k4v4", 2);
  ASSERT_TRUE(store->RegisterLayout(chain.layout).ok());
  PutOptions options;
  options.ttl = milliseconds(500);
  auto session = *store->BeginPut(chain.ns(), chain.announces(), options);
  for (uint32_t i = 0; i < 2; ++i) ASSERT_TRUE(WriteAndCommit(*session, i, chain.objects[i]).ok());
  session.reset();
  LookupOptions lease;
  lease.lease = milliseconds(1000);
  ASSERT_EQ(*store->Pin(chain.ns(), std::vector{chain.keys()[0]}), 1u);
  ASSERT_EQ(store->Lookup(chain.ns(), chain.keys(), lease)->prefix_blocks, 2u);
  now_ms_ += 999;
  ASSERT_TRUE(PutChain(*store, other).ok());  // what is past its time goes
  EXPECT_EQ(StoredPrefix(*store, chain), 2u);
  now_ms_ += 1;
  EXPECT_EQ(StoredPrefix(*store, chain), 1u);  // the pinned one
  ASSERT_EQ(*store->Unpin(chain.ns(), std::vector{chain.keys()[0]}), 1u);
  EXPECT_EQ(StoredPrefix(*store, chain), 0u);
  // No sweep looks at them again; those that come in their place are found nonetheless.
  ASSERT_TRUE(PutChain(*store, chain).ok());
  EXPECT_EQ(StoredPrefix(*store, chain), 2u);
  EXPECT_EQ(GetAll(*store, chain.ns(), chain.identities).objects, chain.objects);
}

TEST_F(Placing, BlocksOfHigherPriorityStayLonger) {
  LocalStoreOptions options = Options(1 << 20, false);
  options.floor_levels = kMaxLevels;
  auto store = *LocalStore::Create(options);
  SampleChain chain(SampleLayout(), 4);
  ASSERT_TRUE(store->RegisterLayout(chain.layout).ok());
  PutOptions high;
  high.priority = 5;
  auto session = *store->BeginPut(chain.ns(), chain.announces(), high);
  for (uint32_t i = 0; i < 4; ++i) ASSERT_TRUE(WriteAndCommit(*session, i, chain.objects[i]).ok());
  session.reset();
  for (uint32_t seed = 10; seed < 60; ++seed) {
    ASSERT_TRUE(PutChain(*store, SampleChain(SampleLayout(), 4, "tq:k4v4", seed)).ok());
  }
  EXPECT_EQ(StoredPrefix(*store, chain), 4u);
}

TEST_F(Placing, VerifyFindsWrongBytesWhereverTheyAre) {
  auto store = *LocalStore::Create(Options(16 << 20, true));
  SampleChain chain(SampleLayout(), 5);
  ASSERT_TRUE(PutChain(*store, chain).ok());
  ASSERT_TRUE(store->AwaitMoved(kPatience).ok());
  LocalStore::VerifyProgress last;
  auto keep = [&](const LocalStore::VerifyProgress& progress) {
    last = progress;
    return true;
  };
  ASSERT_TRUE(store->Verify(Tier::kNone, 0, keep).ok());
  EXPECT_EQ(last.blocks, 10u);
  EXPECT_EQ(last.failures, 0u);
  EXPECT_EQ(last.done, 1.0);
  ASSERT_TRUE(store->InjectFault("corrupt_byte", 2, 40'000).ok());
  ASSERT_TRUE(store->Verify(Tier::kDisk, 0, keep).ok());
  EXPECT_EQ(last.failures, 2u);
  EXPECT_EQ(StoredPrefix(*store, chain), 5u);  // the arena still has them
  EXPECT_EQ(TierOf(*store->Stats(), Tier::kDisk).blocks, 3u);
}

TEST_F(Placing, ThreadsThatOverfillArenaAndDiskNeverSeeAWrongByte) {
  LocalStoreOptions options = Options(1 << 20, false);
  options.lower.push_back(Disk(options.faults, 2 << 20));
  options.floor_levels = 1;
  auto store = *LocalStore::Create(options);
  std::vector<SampleChain> chains;
  for (uint32_t seed = 0; seed < 16; ++seed) chains.emplace_back(SampleLayout(), 12, "tq:k4v4", seed);
  ASSERT_TRUE(store->RegisterLayout(chains[0].layout).ok());
  std::atomic<int> wrong{0};
  auto work = [&](uint32_t seed) {
    std::mt19937 random(seed);
    for (int round = 0; round < 30; ++round) {
      const SampleChain& chain = chains[random() % chains.size()];
      if (random() % 2 == 0) {
        absl::Status put = PutChain(*store, chain);
        wrong += !put.ok() && put.code() != StatusCode::kFailedPrecondition &&
                 put.code() != StatusCode::kResourceExhausted;
      } else if (random() % 8 == 0) {
        wrong += !store->Delete(chain.ns(), chain.keys(), random() % 2 == 0).ok();
      } else {
        Gotten gotten = GetAll(*store, chain.ns(), chain.identities);
        wrong += !gotten.status.ok();
        for (size_t i = 0; i < chain.objects.size(); ++i) {
          if (gotten.misses[i] != StatusCode::kOk) continue;
          wrong += gotten.objects[i].size() > chain.objects[i].size() ||
                   !std::equal(gotten.objects[i].begin(), gotten.objects[i].end(), chain.objects[i].begin());
        }
      }
    }
  };
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < 4; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(store->AwaitMoved(kPatience).ok());
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(store->Stats()->checksum_failures, 0u);
  EXPECT_LE(TierOf(*store->Stats(), Tier::kDisk).used_bytes, 2u << 20);
  for (const SampleChain& chain : chains) ASSERT_TRUE(store->Delete(chain.ns(), chain.keys(), true).ok());
  EXPECT_EQ(TierOf(*store->Stats(), Tier::kHost).used_bytes, 0u);
  EXPECT_EQ(TierOf(*store->Stats(), Tier::kDisk).used_bytes, 0u);
  EXPECT_EQ(*store->StoredBytes(""), 0u);
}

}  // namespace
}  // namespace quire::store

// What every KvStore must do: layouts, lookup, get, delete, statistics.
#include "tests/services/store/conformance.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include "gmock/gmock.h"

namespace quire::store {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

TYPED_TEST(Conformance, RegistersALayoutOnce) {
  Layout layout = SampleLayout();
  EXPECT_EQ(*this->store().RegisterLayout(layout), layout.Fingerprint());
  EXPECT_EQ(*this->store().RegisterLayout(layout), layout.Fingerprint());
  EXPECT_EQ(this->store().Stats()->layouts, 1u);
  layout.layers.clear();
  EXPECT_EQ(this->store().RegisterLayout(layout).status().code(), StatusCode::kInvalidArgument);
}

TYPED_TEST(Conformance, WhatWasPutIsFoundAndComesBackByteForByte) {
  SampleChain chain(SampleLayout(), 5);
  ASSERT_TRUE(PutChain(this->store(), chain).ok());
  LookupResult found = *this->store().Lookup(chain.ns(), chain.keys(), {});
  EXPECT_EQ(found.prefix_blocks, 5u);
  ASSERT_EQ(found.blocks.size(), 5u);
  EXPECT_EQ(found.blocks[2].state, BlockState::kHit);
  EXPECT_EQ(found.blocks[2].tier, Tier::kHost);
  EXPECT_EQ(found.blocks[2].levels, 3u);
  EXPECT_EQ(found.blocks[2].codec, "tq:k4v4");
  EXPECT_EQ(found.blocks[2].bytes, chain.objects[2].size());
  EXPECT_GT(found.blocks[2].fetch_us, 0u);

  Gotten gotten = GetAll(this->store(), chain.ns(), chain.identities);
  EXPECT_TRUE(gotten.status.ok()) << gotten.status;
  EXPECT_EQ(gotten.objects, chain.objects);
}

TYPED_TEST(Conformance, LookupStopsAtTheFirstMissUnlessAskedForAll) {
  SampleChain chain(SampleLayout(), 4);
  ASSERT_TRUE(PutChain(this->store(), chain).ok());
  std::vector<Digest> keys = chain.keys();
  keys[1].bytes[0] ^= 1;
  LookupResult found = *this->store().Lookup(chain.ns(), keys, {});
  EXPECT_EQ(found.prefix_blocks, 1u);
  ASSERT_EQ(found.blocks.size(), 2u);
  EXPECT_EQ(found.blocks[1].state, BlockState::kMiss);

  LookupOptions all;
  all.all = true;
  found = *this->store().Lookup(chain.ns(), keys, all);
  EXPECT_EQ(found.prefix_blocks, 1u);
  ASSERT_EQ(found.blocks.size(), 4u);
  EXPECT_EQ(found.blocks[3].state, BlockState::kHit);

  StoreStats stats = *this->store().Stats();
  EXPECT_EQ(stats.lookups, 2u);
  EXPECT_EQ(stats.hit_tokens, (1 + 3) * kBlockTokens);
  EXPECT_EQ(stats.miss_tokens, (3 + 1) * kBlockTokens);
}

TYPED_TEST(Conformance, LookupOfNothingIsEmpty) {
  ASSERT_TRUE(this->store().RegisterLayout(SampleLayout()).ok());
  LookupResult found = *this->store().Lookup({"", SampleLayout().Fingerprint()}, {}, {});
  EXPECT_THAT(found.blocks, IsEmpty());
  EXPECT_EQ(found.prefix_blocks, 0u);
}

TYPED_TEST(Conformance, AnUnknownLayoutIsNotFound) {
  SampleChain chain(SampleLayout(), 1);
  EXPECT_EQ(this->store().Lookup(chain.ns(), chain.keys(), {}).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(this->store().BeginPut(chain.ns(), chain.announces(), {}).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(this->store().Delete(chain.ns(), chain.keys(), false).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(GetAll(this->store(), chain.ns(), chain.identities).status.code(), StatusCode::kNotFound);
}

TYPED_TEST(Conformance, FewerBitsAreAShorterObject) {
  SampleChain chain(SampleLayout(), 2, "tq:k8v8");
  ASSERT_TRUE(PutChain(this->store(), chain).ok());
  BlockReader reader = *BlockReader::Open(chain.codec, chain.identities[1], chain.objects[1]);
  ASSERT_EQ(reader.levels(), 4);
  for (auto [bits, levels] : {std::pair{1, 1}, {2, 1}, {3, 2}, {4, 3}, {7, 3}, {8, 4}, {16, 4}, {0, 4}}) {
    GetOptions options;
    options.max_bits = static_cast<uint32_t>(bits);
    Gotten gotten = GetAll(this->store(), chain.ns(), chain.identities, options);
    ASSERT_TRUE(gotten.status.ok()) << gotten.status;
    Bytes expected = Bytes(chain.objects[1]).first(reader.slices().ObjectBytes(levels));
    EXPECT_TRUE(std::ranges::equal(gotten.objects[1], expected)) << bits << " bits";
  }
}

TYPED_TEST(Conformance, APartHitsIfAStoredPartCoversIt) {
  Layout layout = SampleLayout(4);
  SampleChain lower(layout, 2, "tq:k4v4", 1, Part{0, 2, 0, 2});
  ASSERT_TRUE(PutChain(this->store(), lower).ok());
  EXPECT_EQ(StoredPrefix(this->store(), lower, "", {0, 2, 0, 2}), 2u);
  EXPECT_EQ(StoredPrefix(this->store(), lower, "", {1, 2, 1, 2}), 2u);
  EXPECT_EQ(StoredPrefix(this->store(), lower, "", {1, 3, 0, 2}), 0u);
  EXPECT_EQ(StoredPrefix(this->store(), lower), 0u);
  GetOptions inner;
  inner.part = {1, 2, 1, 2};
  EXPECT_EQ(GetAll(this->store(), lower.ns(), lower.identities, inner).objects,
            lower.objects);  // whole objects
  EXPECT_THAT(GetAll(this->store(), lower.ns(), lower.identities).misses,
              ElementsAre(StatusCode::kNotFound, StatusCode::kNotFound));

  // The same blocks' other half, by another writer.
  SampleChain upper(layout, 2, "tq:k4v4", 1, Part{2, 4, 0, 2});
  ASSERT_TRUE(PutChain(this->store(), upper).ok());
  EXPECT_EQ(StoredPrefix(this->store(), lower, "", {2, 4, 0, 2}), 2u);
  EXPECT_EQ(this->store().Stats()->tiers[0].blocks, 4u);
  EXPECT_EQ(*this->store().Delete(lower.ns(), lower.keys(), false), 2u);
  EXPECT_EQ(UsedBytes(this->engine()), 0u);
}

TYPED_TEST(Conformance, TenantsDoNotMeet) {
  SampleChain chain(SampleLayout(), 2);
  ASSERT_TRUE(PutChain(this->store(), chain, "a").ok());
  EXPECT_EQ(StoredPrefix(this->store(), chain, "a"), 2u);
  for (const char* tenant : {"", "b", "A"}) {
    EXPECT_EQ(StoredPrefix(this->store(), chain, tenant), 0u);
    EXPECT_THAT(GetAll(this->store(), chain.ns(tenant), chain.identities).misses,
                ElementsAre(StatusCode::kNotFound, StatusCode::kNotFound));
    EXPECT_EQ(*this->store().Delete(chain.ns(tenant), chain.keys(), true), 0u);
  }
  ASSERT_TRUE(PutChain(this->store(), chain, "b").ok());
  EXPECT_EQ(this->store().Stats()->tiers[0].blocks, 4u);  // not shared
  EXPECT_EQ(*this->store().Delete(chain.ns("b"), chain.keys(), false), 2u);
  EXPECT_EQ(StoredPrefix(this->store(), chain, "a"), 2u);
}

TYPED_TEST(Conformance, GetChecksParentAndIndex) {
  SampleChain chain(SampleLayout(), 2);
  ASSERT_TRUE(PutChain(this->store(), chain).ok());
  std::vector<BlockIdentity> blocks = chain.identities;
  blocks[0].index = 1;
  blocks[1].parent.bytes[0] ^= 1;
  EXPECT_THAT(GetAll(this->store(), chain.ns(), blocks).misses,
              ElementsAre(StatusCode::kNotFound, StatusCode::kNotFound));
  EXPECT_EQ(GetAll(this->store(), chain.ns(), chain.identities).objects,
            chain.objects);  // a wrong question harms nothing
}

TYPED_TEST(Conformance, GetStopsWithItsSink) {
  SampleChain chain(SampleLayout(), 3);
  ASSERT_TRUE(PutChain(this->store(), chain).ok());
  for (absl::Status stop :
       {absl::AbortedError("enough"), absl::NotFoundError("enough"), absl::UnavailableError("enough")}) {
    int blocks = 0;
    GetSink sink;
    sink.on_block = [&](uint32_t, Bytes) { return ++blocks == 2 ? stop : absl::OkStatus(); };
    sink.on_miss = [](uint32_t, const absl::Status& why) { return why; };
    EXPECT_EQ(this->store().Get(chain.ns(), chain.identities, {}, sink), stop);
    EXPECT_EQ(blocks, 2);
  }
}

TYPED_TEST(Conformance, BlocksComeInTheOrderAskedFor) {
  SampleChain chain(SampleLayout(), 4);
  ASSERT_TRUE(PutChain(this->store(), chain).ok());
  ASSERT_EQ(*this->store().Delete(chain.ns(), {{chain.identities[2].key}}, false), 1u);
  std::vector<BlockIdentity> asked = {chain.identities[3], chain.identities[2], chain.identities[0],
                                      chain.identities[3]};
  std::vector<std::string> seen;
  GetSink sink;
  sink.on_block = [&](uint32_t i, Bytes) {
    return seen.push_back("block " + std::to_string(i)), absl::OkStatus();
  };
  sink.on_miss = [&](uint32_t i, const absl::Status&) {
    return seen.push_back("miss " + std::to_string(i)), absl::OkStatus();
  };
  EXPECT_TRUE(this->store().Get(chain.ns(), asked, {}, sink).ok());
  EXPECT_THAT(seen, ElementsAre("block 0", "miss 1", "block 2", "block 3"));
}

TYPED_TEST(Conformance, ADeletedParentLeavesItsChildrenReachableByGet) {
  SampleChain chain(SampleLayout(), 3);
  ASSERT_TRUE(PutChain(this->store(), chain).ok());
  EXPECT_EQ(*this->store().Delete(chain.ns(), {{chain.identities[0].key}}, false), 1u);
  EXPECT_EQ(*this->store().Delete(chain.ns(), {{chain.identities[0].key}}, false), 0u);
  EXPECT_EQ(StoredPrefix(this->store(), chain), 0u);
  EXPECT_THAT(GetAll(this->store(), chain.ns(), chain.identities).misses,
              ElementsAre(StatusCode::kNotFound, StatusCode::kOk, StatusCode::kOk));
  ASSERT_TRUE(PutChain(this->store(), chain).ok());  // only the parent is missing
  EXPECT_EQ(StoredPrefix(this->store(), chain), 3u);
  EXPECT_EQ(this->store().Stats()->blocks_stored, 4u);
}

TYPED_TEST(Conformance, LeasedBlocksAreDeletedByForceOnly) {
  SampleChain chain(SampleLayout(), 2);
  ASSERT_TRUE(PutChain(this->store(), chain).ok());
  LookupOptions lease;
  lease.lease = std::chrono::minutes(5);
  EXPECT_NE(this->store().Lookup(chain.ns(), chain.keys(), lease)->lease_id, 0u);
  EXPECT_EQ(*this->store().Delete(chain.ns(), chain.keys(), false), 0u);
  EXPECT_EQ(*this->store().Delete(chain.ns(), chain.keys(), true), 2u);
  EXPECT_EQ(this->store().Stats()->blocks_deleted, 2u);
}

TYPED_TEST(Conformance, AFlippedByteIsAMissAndCounted) {
  LocalStoreOptions options = SmallStore();
  options.enable_faults = true;
  this->Start(options);
  SampleChain chain(SampleLayout(), 3);
  ASSERT_TRUE(PutChain(this->store(), chain).ok());
  ASSERT_TRUE(this->engine().InjectFault("corrupt_byte", 1).ok());
  Gotten gotten = GetAll(this->store(), chain.ns(), chain.identities);
  EXPECT_TRUE(gotten.status.ok());
  // Which of them it is depends on what is read first, where a backend has several calls under way.
  EXPECT_THAT(gotten.misses, UnorderedElementsAre(StatusCode::kDataLoss, StatusCode::kOk, StatusCode::kOk));
  EXPECT_EQ(gotten.callbacks, 3);
  EXPECT_EQ(this->store().Stats()->checksum_failures, 1u);
  auto lost = std::find(gotten.misses.begin(), gotten.misses.end(), StatusCode::kDataLoss);
  EXPECT_EQ(static_cast<ptrdiff_t>(StoredPrefix(this->store(), chain)),
            lost - gotten.misses.begin());  // dropped
  ASSERT_TRUE(PutChain(this->store(), chain).ok());
  EXPECT_EQ(GetAll(this->store(), chain.ns(), chain.identities).objects, chain.objects);
}

TYPED_TEST(Conformance, FaultsAreOffUnlessAskedFor) {
  EXPECT_EQ(this->engine().InjectFault("corrupt_byte", 1).code(), StatusCode::kPermissionDenied);
}

TYPED_TEST(Conformance, StatsChargeWhatIsUsed) {
  SampleChain chain(SampleLayout(), 3);
  ASSERT_TRUE(PutChain(this->store(), chain).ok());
  uint64_t bytes = 0;
  for (const auto& object : chain.objects) bytes += object.size();
  StoreStats stats = *this->store().Stats();
  EXPECT_EQ(stats.tiers[0].tier, Tier::kHost);
  EXPECT_EQ(stats.tiers[0].capacity_bytes, 16u << 20);
  EXPECT_EQ(stats.tiers[0].blocks, 3u);
  EXPECT_EQ(stats.tiers[0].raw_bytes, 3 * chain.layout.RawBlockBytes());
  EXPECT_EQ(stats.raw_bytes_stored, 3 * chain.layout.RawBlockBytes());
  EXPECT_GE(stats.tiers[0].used_bytes, bytes);
  EXPECT_LE(stats.tiers[0].used_bytes, bytes + 3 * 64);
  EXPECT_EQ(*this->store().Delete(chain.ns(), chain.keys(), false), 3u);
  EXPECT_EQ(this->store().Stats()->tiers[0].used_bytes, 0u);
  EXPECT_EQ(this->store().Stats()->raw_bytes_stored, 0u);
}

TYPED_TEST(Conformance, StatsCountEveryPartOfABlock) {
  Layout layout = SampleLayout(4);
  SampleChain lower(layout, 2, "tq:k4v4", 1, Part{0, 2, 0, 2}), whole(layout, 2);
  ASSERT_TRUE(PutChain(this->store(), lower).ok());
  uint64_t lower_bytes = this->store().Stats()->raw_bytes_stored;
  ASSERT_TRUE(PutChain(this->store(), whole).ok());
  StoreStats stats = *this->store().Stats();
  EXPECT_EQ(stats.raw_bytes_stored, lower_bytes + 2 * layout.RawBlockBytes());
  EXPECT_EQ(stats.tiers[0].blocks, 4u);
  EXPECT_EQ(*this->store().Delete(whole.ns(), whole.keys(), false), 2u);
  stats = *this->store().Stats();
  EXPECT_EQ(stats.raw_bytes_stored, 0u);
  EXPECT_EQ(stats.tiers[0].blocks, 0u);
  EXPECT_EQ(stats.tiers[0].raw_bytes, 0u);
}

TYPED_TEST(Conformance, ManyThreadsPutGetAndDeleteTheSameBlocks) {
  SampleChain chain(SampleLayout(), 6);
  ASSERT_TRUE(this->store().RegisterLayout(chain.layout).ok());
  std::atomic<int> wrong{0}, came{0};
  auto work = [&](int seed) {
    std::mt19937 random(static_cast<uint32_t>(seed));
    for (int round = 0; round < 40; ++round) {
      switch (random() % 4) {
        case 0:
        case 1: {
          absl::Status put = PutChain(this->store(), chain);
          // A parent may be deleted under the put.
          if (!put.ok() && !absl::IsFailedPrecondition(put)) ++wrong;
          break;
        }
        case 2: {
          Gotten gotten = GetAll(this->store(), chain.ns(), chain.identities);
          if (!gotten.status.ok()) ++wrong;
          for (size_t i = 0; i < gotten.objects.size(); ++i) {
            if (gotten.misses[i] == StatusCode::kOk) ++came, wrong += gotten.objects[i] != chain.objects[i];
          }
          break;
        }
        default:
          if (!this->store().Delete(chain.ns(), {{chain.identities[random() % 6].key}}, false).ok()) ++wrong;
      }
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(came, 0);
  EXPECT_EQ(this->store().Stats()->checksum_failures, 0u);
  ASSERT_TRUE(this->store().Delete(chain.ns(), chain.keys(), true).ok());
  AwaitNoSessions(this->engine());
  EXPECT_EQ(UsedBytes(this->engine()), 0u);
}

}  // namespace
}  // namespace quire::store

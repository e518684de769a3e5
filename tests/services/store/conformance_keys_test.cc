// What every KvStore must do: calls about keys (Pin, Unpin, Touch, Prefetch).
#include <algorithm>

#include "gmock/gmock.h"
#include "services/store/api/limits.h"
#include "tests/services/store/conformance.h"

namespace quire::store {
namespace {

using absl::StatusCode;

// Blocks of 16 KiB raw; a store of this size holds a few dozen.
constexpr uint64_t kSmallBytes = 1 << 20;
SampleChain RawChain(uint32_t blocks, uint32_t seed) {
  return SampleChain(SampleLayout(1), blocks, "raw", seed);
}

// Puts chains of one block until `blocks` of them have been evicted, which takes more than the store holds.
void Press(KvStore& store, uint32_t blocks, uint32_t seed) {
  uint64_t goal = store.Stats()->blocks_evicted + blocks;
  for (uint32_t i = 0; store.Stats()->blocks_evicted < goal; ++i) {
    ASSERT_LT(i, 1000u) << "nothing is evicted";
    ASSERT_TRUE(PutChain(store, RawChain(1, seed + i)).ok());
  }
}

TYPED_TEST(Conformance, PinnedBlocksSurvivePressure) {
  this->Start(SmallStore(kSmallBytes));
  SampleChain pinned = RawChain(4, 1), other = RawChain(4, 2);
  ASSERT_TRUE(PutChain(this->store(), pinned).ok());
  EXPECT_EQ(*this->store().Pin(pinned.ns(), pinned.keys()), 4u);
  ASSERT_TRUE(PutChain(this->store(), other).ok());
  Press(this->store(), 40, 1000);  // all but the pinned ones are gone by then, and newer ones too
  EXPECT_EQ(StoredPrefix(this->store(), other), 0u);
  EXPECT_EQ(StoredPrefix(this->store(), pinned), 4u);
  EXPECT_EQ(GetAll(this->store(), pinned.ns(), pinned.identities).objects, pinned.objects);

  EXPECT_EQ(*this->store().Unpin(pinned.ns(), pinned.keys()), 4u);
  Press(this->store(), 80, 5000);
  EXPECT_EQ(StoredPrefix(this->store(), pinned), 0u);
}

TYPED_TEST(Conformance, APinOfAChildKeepsItsParents) {
  this->Start(SmallStore(kSmallBytes));
  SampleChain chain = RawChain(5, 1);
  ASSERT_TRUE(PutChain(this->store(), chain).ok());
  ASSERT_EQ(*this->store().Pin(chain.ns(), {{chain.identities[2].key}}), 1u);
  Press(this->store(), 60, 1000);
  EXPECT_EQ(StoredPrefix(this->store(), chain), 3u);
}

TYPED_TEST(Conformance, PinsOfOneBlockCount) {
  this->Start(SmallStore(kSmallBytes));
  SampleChain chain = RawChain(1, 1);
  ASSERT_TRUE(PutChain(this->store(), chain).ok());
  ASSERT_EQ(*this->store().Pin(chain.ns(), chain.keys()), 1u);
  ASSERT_EQ(*this->store().Pin(chain.ns(), chain.keys()), 1u);
  EXPECT_EQ(*this->store().Unpin(chain.ns(), chain.keys()), 1u);
  Press(this->store(), 60, 1000);
  EXPECT_EQ(StoredPrefix(this->store(), chain), 1u);  // one pin is left
  EXPECT_EQ(*this->store().Unpin(chain.ns(), chain.keys()), 1u);
  EXPECT_EQ(*this->store().Unpin(chain.ns(), chain.keys()), 0u);  // was not pinned
  Press(this->store(), 60, 5000);
  EXPECT_EQ(StoredPrefix(this->store(), chain), 0u);
  EXPECT_EQ(*this->store().Pin(chain.ns(), chain.keys()), 0u);
}

TYPED_TEST(Conformance, AStoreFullOfPinsRefusesAndHarmsNothing) {
  this->Start(SmallStore(kSmallBytes));
  std::vector<SampleChain> singles;
  for (;;) {
    SampleChain next = RawChain(1, 10 + static_cast<uint32_t>(singles.size()));
    absl::Status put = PutChain(this->store(), next);
    if (absl::IsResourceExhausted(put)) break;
    ASSERT_TRUE(put.ok()) << put;
    ASSERT_EQ(*this->store().Pin(next.ns(), next.keys()), 1u);
    singles.push_back(std::move(next));
    ASSERT_LT(singles.size(), 1000u);
  }
  EXPECT_GT(singles.size(), 10u);
  EXPECT_EQ(this->store().Stats()->blocks_evicted, 0u);
  for (const SampleChain& single : singles) EXPECT_EQ(StoredPrefix(this->store(), single), 1u);
}

TYPED_TEST(Conformance, PinnedBlocksAreDeletedByForceOnly) {
  SampleChain chain(SampleLayout(), 2);
  ASSERT_TRUE(PutChain(this->store(), chain).ok());
  ASSERT_EQ(*this->store().Pin(chain.ns(), chain.keys()), 2u);
  EXPECT_EQ(*this->store().Delete(chain.ns(), chain.keys(), false), 0u);
  EXPECT_EQ(StoredPrefix(this->store(), chain), 2u);
  EXPECT_EQ(*this->store().Delete(chain.ns(), chain.keys(), true), 2u);
  EXPECT_EQ(*this->store().Unpin(chain.ns(), chain.keys()), 0u);
}

TYPED_TEST(Conformance, TouchedBlocksAreTheLastToGo) {
  this->Start(SmallStore(kSmallBytes));
  SampleChain older = RawChain(4, 1), newer = RawChain(4, 2);
  ASSERT_TRUE(PutChain(this->store(), older).ok());
  ASSERT_TRUE(PutChain(this->store(), newer).ok());
  EXPECT_EQ(*this->store().Touch(older.ns(), older.keys()), 4u);
  Press(this->store(), 4, 1000);
  EXPECT_EQ(StoredPrefix(this->store(), older), 4u);
  EXPECT_EQ(StoredPrefix(this->store(), newer), 0u);
}

TYPED_TEST(Conformance, CallsAboutKeysCountWhatIsStored) {
  SampleChain chain(SampleLayout(), 3);
  ASSERT_TRUE(PutChain(this->store(), chain).ok());
  std::vector<Digest> keys = chain.keys();
  keys[1].bytes[0] ^= 1;
  EXPECT_EQ(*this->store().Pin(chain.ns(), keys), 2u);
  EXPECT_EQ(*this->store().Touch(chain.ns(), keys), 2u);
  EXPECT_EQ(*this->store().Unpin(chain.ns(), keys), 2u);
  EXPECT_EQ(*this->store().Unpin(chain.ns(), keys), 0u);
  EXPECT_EQ(*this->store().Pin(chain.ns(), {}), 0u);
  // All that is stored is in the only tier, the fastest, already.
  EXPECT_EQ(*this->store().Prefetch(chain.ns(), keys, Tier::kNone), 0u);
  for (const char* tenant : {"b", "A"}) {
    EXPECT_EQ(*this->store().Pin(chain.ns(tenant), chain.keys()), 0u);
    EXPECT_EQ(*this->store().Unpin(chain.ns(tenant), chain.keys()), 0u);
    EXPECT_EQ(*this->store().Touch(chain.ns(tenant), chain.keys()), 0u);
    EXPECT_EQ(*this->store().Prefetch(chain.ns(tenant), chain.keys(), Tier::kNone), 0u);
  }
}

TYPED_TEST(Conformance, CallsAboutKeysRefuseUnknownLayoutsAndTooManyKeys) {
  SampleChain chain(SampleLayout(), 1);
  auto all = [&](const Namespace& ns, const std::vector<Digest>& keys) {
    return std::vector<StatusCode>{this->store().Pin(ns, keys).status().code(),
                                   this->store().Unpin(ns, keys).status().code(),
                                   this->store().Touch(ns, keys).status().code(),
                                   this->store().Prefetch(ns, keys, Tier::kNone).status().code()};
  };
  EXPECT_THAT(all(chain.ns(), chain.keys()), testing::Each(StatusCode::kNotFound));
  ASSERT_TRUE(this->store().RegisterLayout(chain.layout).ok());
  EXPECT_THAT(all(chain.ns(), std::vector<Digest>(kMaxKeys + 1)),
              testing::Each(StatusCode::kInvalidArgument));
  EXPECT_THAT(all(chain.ns(std::string(257, 't')), chain.keys()),
              testing::Each(StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace quire::store

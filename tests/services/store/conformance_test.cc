// What every KvStore must do, run on the local engine and on the gRPC client of a real server.
#include <algorithm>
#include <atomic>
#include <thread>

#include "gmock/gmock.h"
#include "services/store/api/limits.h"
#include "tests/services/store/backends.h"
#include "tests/services/store/sample_chain.h"

namespace quire::store {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

template <typename Backend>
class Conformance : public testing::Test {
 protected:
  void Start(const LocalStoreOptions& options = SmallStore()) { backend_ = std::make_unique<Backend>(options); }
  void SetUp() override { Start(); }
  KvStore& store() { return backend_->store(); }
  LocalStore& engine() { return backend_->engine(); }

  std::unique_ptr<PutSession> Begin(const SampleChain& chain, std::vector<BlockAnnounce> blocks, const PutOptions& options = {}) {
    EXPECT_TRUE(store().RegisterLayout(chain.layout).ok());
    auto session = store().BeginPut(chain.ns(), blocks, options);
    EXPECT_TRUE(session.ok()) << session.status();
    return session.ok() ? *std::move(session) : nullptr;
  }
  absl::Status BeginFails(const SampleChain& chain, std::vector<BlockAnnounce> blocks, const PutOptions& options = {}) {
    EXPECT_TRUE(store().RegisterLayout(chain.layout).ok());
    auto session = store().BeginPut(chain.ns(), blocks, options);
    EXPECT_FALSE(session.ok());
    return session.status();
  }
  // Nothing of a failed or abandoned put is left.
  void ExpectUntouched() {
    AwaitNoSessions(engine());
    EXPECT_EQ(UsedBytes(engine()), 0u);
    EXPECT_EQ(store().Stats()->blocks_stored, 0u);
  }

  std::unique_ptr<Backend> backend_;
};

using Backends = testing::Types<LocalBackend, RemoteBackend>;
TYPED_TEST_SUITE(Conformance, Backends);

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

TYPED_TEST(Conformance, NothingIsVisibleBeforeItsCommit) {
  SampleChain chain(SampleLayout(), 2);
  auto session = this->Begin(chain, chain.announces());
  EXPECT_THAT(session->wanted(), ElementsAre(0, 1));
  ASSERT_TRUE(session->Write(0, 0, chain.objects[0]).ok());
  EXPECT_EQ(this->store().Lookup(chain.ns(), chain.keys(), {})->blocks[0].state, BlockState::kPending);
  EXPECT_THAT(GetAll(this->store(), chain.ns(), chain.identities).misses, ElementsAre(StatusCode::kNotFound, StatusCode::kNotFound));

  EXPECT_EQ(*session->Commit(0), chain.objects[0].size());
  EXPECT_EQ(*session->Commit(0), chain.objects[0].size());  // again: the same answer
  EXPECT_EQ(StoredPrefix(this->store(), chain), 1u);
  session.reset();
  AwaitNoSessions(this->engine());
  EXPECT_EQ(StoredPrefix(this->store(), chain), 1u);
  EXPECT_EQ(this->store().Stats()->blocks_stored, 1u);
}

TYPED_TEST(Conformance, ASessionDestroyedLeavesNothing) {
  SampleChain chain(SampleLayout(), 3);
  for (size_t written : {size_t{0}, chain.objects[0].size() / 2, chain.objects[0].size()}) {
    auto session = this->Begin(chain, chain.announces());
    if (written > 0) {
      ASSERT_TRUE(session->Write(0, 0, Bytes(chain.objects[0]).first(written)).ok());
    }
    session.reset();
    this->ExpectUntouched();
    EXPECT_EQ(this->store().Lookup(chain.ns(), chain.keys(), {})->blocks[0].state, BlockState::kMiss);
  }
}

TYPED_TEST(Conformance, StoredBlocksAreNotWantedAgain) {
  SampleChain chain(SampleLayout(), 4);
  ASSERT_TRUE(PutChain(this->store(), chain).ok());
  ASSERT_EQ(*this->store().Delete(chain.ns(), {{chain.identities[3].key}}, false), 1u);
  auto session = this->Begin(chain, chain.announces());
  EXPECT_THAT(session->wanted(), ElementsAre(3));
  EXPECT_EQ(session->Write(0, 0, chain.objects[0]).code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(WriteAndCommit(*session, 3, chain.objects[3]).ok());
  EXPECT_EQ(StoredPrefix(this->store(), chain), 4u);
}

TYPED_TEST(Conformance, WritesOutOfOrderAreRefusedAndHarmNothing) {
  SampleChain chain(SampleLayout(), 2);
  Bytes object = chain.objects[0];
  auto session = this->Begin(chain, chain.announces());
  auto expect_invalid = [](const absl::Status& status, const std::string& text) {
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  };
  expect_invalid(session->Write(0, 8, object.first(8)), "offset 8 where 0 comes next");
  ASSERT_TRUE(session->Write(0, 0, object.first(100)).ok());
  expect_invalid(session->Write(0, 0, object.first(100)), "offset 0 where 100 comes next");
  expect_invalid(session->Write(7, 0, object), "block 7: 2 were announced");
  std::vector<uint8_t> long_tail(object.size());
  expect_invalid(session->Write(0, 100, long_tail), "announced");
  expect_invalid(session->Commit(0).status(), "100 of");
  ASSERT_TRUE(session->Write(0, 100, object.subspan(100)).ok());
  EXPECT_TRUE(session->Commit(0).ok());
}

TYPED_TEST(Conformance, TwoSessionsMayWriteTheSameBlock) {
  SampleChain chain(SampleLayout(), 1);
  auto first = this->Begin(chain, chain.announces());
  auto second = this->Begin(chain, chain.announces());
  EXPECT_THAT(second->wanted(), ElementsAre(0));
  EXPECT_TRUE(WriteAndCommit(*second, 0, chain.objects[0]).ok());
  uint64_t used = UsedBytes(this->engine());
  EXPECT_TRUE(WriteAndCommit(*first, 0, chain.objects[0]).ok());
  first.reset();
  second.reset();
  AwaitNoSessions(this->engine());
  EXPECT_EQ(UsedBytes(this->engine()), used);
  EXPECT_EQ(this->store().Stats()->blocks_stored, 1u);
}

TYPED_TEST(Conformance, AParentMustBeStoredOrEarlierInTheList) {
  SampleChain chain(SampleLayout(), 3);
  std::vector<BlockAnnounce> blocks = chain.announces();
  EXPECT_EQ(this->BeginFails(chain, {blocks[1]}).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(this->BeginFails(chain, {blocks[1], blocks[0]}).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(this->BeginFails(chain, {blocks[0], blocks[0]}).code(), StatusCode::kInvalidArgument);
  BlockAnnounce wrong_index = blocks[1];
  wrong_index.identity.index = 2;
  EXPECT_EQ(this->BeginFails(chain, {blocks[0], wrong_index}).code(), StatusCode::kInvalidArgument);
  wrong_index.identity.index = 0;
  EXPECT_EQ(this->BeginFails(chain, {blocks[0], wrong_index}).code(), StatusCode::kInvalidArgument);

  // Stored, then the rest in a session of its own.
  auto session = this->Begin(chain, {blocks[0]});
  ASSERT_TRUE(WriteAndCommit(*session, 0, chain.objects[0]).ok());
  session = this->Begin(chain, {blocks[1], blocks[2]});
  // A child cannot be committed before its parent.
  EXPECT_EQ(WriteAndCommit(*session, 1, chain.objects[2]).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(WriteAndCommit(*session, 0, chain.objects[1]).ok());
  EXPECT_EQ(StoredPrefix(this->store(), chain), 2u);
}

TYPED_TEST(Conformance, ForgedObjectsAreRefused) {
  SampleChain chain(SampleLayout(), 2);
  SampleChain other(SampleLayout(), 2, "tq:k4v4", /*seed=*/2);
  auto put = [&](std::vector<uint8_t> object) {
    BlockAnnounce announce = chain.announces()[0];
    announce.bytes = object.size();
    return WriteAndCommit(*this->Begin(chain, {announce}), 0, object).status().code();
  };
  EXPECT_EQ(put(other.objects[0]), StatusCode::kDataLoss);  // another key
  EXPECT_EQ(put(chain.objects[1]), StatusCode::kDataLoss);  // another block of the chain
  EXPECT_EQ(put(std::vector<uint8_t>(chain.objects[0].size(), 0)), StatusCode::kDataLoss);
  std::vector<uint8_t> cut = chain.objects[0];
  cut.resize(cut.size() - 16);
  EXPECT_EQ(put(cut), StatusCode::kDataLoss);
  for (size_t at = 0; at < chain.objects[0].size(); at += chain.objects[0].size() / 97) {
    std::vector<uint8_t> flipped = chain.objects[0];
    flipped[at] ^= 0x04;
    StatusCode code = put(flipped);
    EXPECT_TRUE(code == StatusCode::kDataLoss || code == StatusCode::kUnimplemented) << "byte " << at << ": " << code;
  }
  this->ExpectUntouched();
  EXPECT_EQ(this->store().Stats()->checksum_failures, 0u);  // nothing that was stored was wrong
  EXPECT_EQ(put(chain.objects[0]), StatusCode::kOk);
}

TYPED_TEST(Conformance, AbsurdAnnouncementsAreRefused) {
  SampleChain chain(SampleLayout(), 1);
  EXPECT_EQ(this->BeginFails(chain, {}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(this->BeginFails(chain, std::vector<BlockAnnounce>(kMaxBlocks + 1, chain.announces()[0])).code(),
            StatusCode::kInvalidArgument);
  for (uint64_t bytes : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 40, UINT64_MAX}) {
    BlockAnnounce announce = chain.announces()[0];
    announce.bytes = bytes;
    EXPECT_EQ(this->BeginFails(chain, {announce}).code(), StatusCode::kInvalidArgument) << bytes;
  }
  PutOptions options;
  options.part = {0, 3, 0, 2};
  EXPECT_EQ(this->BeginFails(chain, chain.announces(), options).code(), StatusCode::kInvalidArgument);
  options = {};
  for (const char* spec : {"tq:k4v", "zip", "tq:k4v4,layers=5:k8v8"}) {
    options.encode = spec;
    EXPECT_EQ(this->BeginFails(chain, chain.raw_announces(), options).code(), StatusCode::kInvalidArgument) << spec;
  }
  EXPECT_EQ(this->store().BeginPut(chain.ns(std::string(300, 'x')), chain.announces(), {}).status().code(),
            StatusCode::kInvalidArgument);
  LookupOptions lookup;
  lookup.lease = std::chrono::hours(1);
  EXPECT_EQ(this->store().Lookup(chain.ns(), chain.keys(), lookup).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(this->store().Lookup(chain.ns(), std::vector<Digest>(kMaxKeys + 1), {}).status().code(), StatusCode::kInvalidArgument);
  this->ExpectUntouched();
}

TYPED_TEST(Conformance, TheStoreEncodesRawBlocks) {
  SampleChain chain(SampleLayout(), 3);
  PutOptions options;
  options.encode = "tq:k4v4";
  auto session = this->Begin(chain, chain.raw_announces(), options);
  for (uint32_t i : session->wanted()) {
    EXPECT_EQ(*WriteAndCommit(*session, i, chain.raw[i]), chain.objects[i].size());
  }
  EXPECT_EQ(GetAll(this->store(), chain.ns(), chain.identities).objects, chain.objects);  // encoding is deterministic
}

TYPED_TEST(Conformance, ABlockThatCannotBeEncodedHarmsNoOther) {
  SampleChain chain(SampleLayout(), 2);
  PutOptions options;
  options.encode = "tq:k4v4";
  auto session = this->Begin(chain, chain.raw_announces(), options);
  ASSERT_TRUE(WriteAndCommit(*session, 0, chain.raw[0]).ok());
  std::vector<uint8_t> infinite = chain.raw[1];
  infinite[1] = 0x7F, infinite[0] = 0x80;  // bf16 infinity
  absl::Status status = WriteAndCommit(*session, 1, infinite).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("layer"));
  EXPECT_EQ(StoredPrefix(this->store(), chain), 1u);
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

TYPED_TEST(Conformance, AShorterObjectMayBePut) {
  SampleChain chain(SampleLayout(), 1);
  BlockReader reader = *BlockReader::Open(chain.codec, chain.identities[0], chain.objects[0]);
  std::vector<uint8_t> shorter(chain.objects[0].begin(), chain.objects[0].begin() + reader.slices().ObjectBytes(2));
  auto session = this->Begin(chain, {{chain.identities[0], shorter.size()}});
  ASSERT_TRUE(WriteAndCommit(*session, 0, shorter).ok());
  EXPECT_EQ(this->store().Lookup(chain.ns(), chain.keys(), {})->blocks[0].levels, 2u);
  EXPECT_EQ(GetAll(this->store(), chain.ns(), chain.identities).objects[0], shorter);
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
  EXPECT_EQ(GetAll(this->store(), lower.ns(), lower.identities, inner).objects, lower.objects);  // whole objects
  EXPECT_THAT(GetAll(this->store(), lower.ns(), lower.identities).misses, ElementsAre(StatusCode::kNotFound, StatusCode::kNotFound));

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
  EXPECT_THAT(GetAll(this->store(), chain.ns(), blocks).misses, ElementsAre(StatusCode::kNotFound, StatusCode::kNotFound));
  EXPECT_EQ(GetAll(this->store(), chain.ns(), chain.identities).objects, chain.objects);  // a wrong question harms nothing
}

TYPED_TEST(Conformance, GetStopsWithItsSink) {
  SampleChain chain(SampleLayout(), 3);
  ASSERT_TRUE(PutChain(this->store(), chain).ok());
  for (absl::Status stop : {absl::AbortedError("enough"), absl::NotFoundError("enough"), absl::UnavailableError("enough")}) {
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
  std::vector<BlockIdentity> asked = {chain.identities[3], chain.identities[2], chain.identities[0], chain.identities[3]};
  std::vector<std::string> seen;
  GetSink sink;
  sink.on_block = [&](uint32_t i, Bytes) { return seen.push_back("block " + std::to_string(i)), absl::OkStatus(); };
  sink.on_miss = [&](uint32_t i, const absl::Status&) { return seen.push_back("miss " + std::to_string(i)), absl::OkStatus(); };
  EXPECT_TRUE(this->store().Get(chain.ns(), asked, {}, sink).ok());
  EXPECT_THAT(seen, ElementsAre("block 0", "miss 1", "block 2", "block 3"));
}

TYPED_TEST(Conformance, ADeletedParentLeavesItsChildrenReachableByGet) {
  SampleChain chain(SampleLayout(), 3);
  ASSERT_TRUE(PutChain(this->store(), chain).ok());
  EXPECT_EQ(*this->store().Delete(chain.ns(), {{chain.identities[0].key}}, false), 1u);
  EXPECT_EQ(*this->store().Delete(chain.ns(), {{chain.identities[0].key}}, false), 0u);
  EXPECT_EQ(StoredPrefix(this->store(), chain), 0u);
  EXPECT_THAT(GetAll(this->store(), chain.ns(), chain.identities).misses, ElementsAre(StatusCode::kNotFound, StatusCode::kOk, StatusCode::kOk));
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
  EXPECT_THAT(gotten.misses, ElementsAre(StatusCode::kDataLoss, StatusCode::kOk, StatusCode::kOk));
  EXPECT_EQ(gotten.callbacks, 3);
  EXPECT_EQ(this->store().Stats()->checksum_failures, 1u);
  EXPECT_EQ(StoredPrefix(this->store(), chain), 0u);  // dropped
  ASSERT_TRUE(PutChain(this->store(), chain).ok());
  EXPECT_EQ(GetAll(this->store(), chain.ns(), chain.identities).objects, chain.objects);
}

TYPED_TEST(Conformance, FaultsAreOffUnlessAskedFor) {
  EXPECT_EQ(this->engine().InjectFault("corrupt_byte", 1).code(), StatusCode::kPermissionDenied);
}

TYPED_TEST(Conformance, SessionsAndAnnouncedBytesAreLimited) {
  SampleChain chain(SampleLayout(), 4);
  LocalStoreOptions options = SmallStore();
  options.max_put_sessions = 2;
  options.max_announced_bytes = chain.objects[0].size() * 4;
  this->Start(options);
  auto first = this->Begin(chain, {chain.announces()[0]});
  EXPECT_EQ(this->BeginFails(chain, chain.announces()).code(), StatusCode::kResourceExhausted);
  auto second = this->Begin(chain, {chain.announces()[0]});
  EXPECT_EQ(this->BeginFails(chain, {chain.announces()[0]}).code(), StatusCode::kResourceExhausted);
  first.reset();
  second.reset();
  AwaitNoSessions(this->engine());
  EXPECT_NE(this->Begin(chain, chain.announces()), nullptr);
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

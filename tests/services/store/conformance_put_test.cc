// What every KvStore must do: the two-phase put.
#include <algorithm>

#include "gmock/gmock.h"
#include "services/store/api/limits.h"
#include "tests/services/store/conformance.h"

namespace quire::store {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

TYPED_TEST(Conformance, NothingIsVisibleBeforeItsCommit) {
  SampleChain chain(SampleLayout(), 2);
  auto session = this->Begin(chain, chain.announces());
  EXPECT_THAT(session->wanted(), ElementsAre(0, 1));
  ASSERT_TRUE(session->Write(0, 0, chain.objects[0]).ok());
  EXPECT_EQ(this->store().Lookup(chain.ns(), chain.keys(), {})->blocks[0].state, BlockState::kPending);
  EXPECT_THAT(GetAll(this->store(), chain.ns(), chain.identities).misses,
              ElementsAre(StatusCode::kNotFound, StatusCode::kNotFound));

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
    EXPECT_TRUE(code == StatusCode::kDataLoss || code == StatusCode::kUnimplemented)
        << "byte " << at << ": " << code;
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
    EXPECT_EQ(this->BeginFails(chain, chain.raw_announces(), options).code(), StatusCode::kInvalidArgument)
        << spec;
  }
  EXPECT_EQ(this->store().BeginPut(chain.ns(std::string(300, 'x')), chain.announces(), {}).status().code(),
            StatusCode::kInvalidArgument);
  LookupOptions lookup;
  lookup.lease = std::chrono::hours(1);
  EXPECT_EQ(this->store().Lookup(chain.ns(), chain.keys(), lookup).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(this->store().Lookup(chain.ns(), std::vector<Digest>(kMaxKeys + 1), {}).status().code(),
            StatusCode::kInvalidArgument);
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
  EXPECT_EQ(GetAll(this->store(), chain.ns(), chain.identities).objects,
            chain.objects);  // encoding is deterministic
}

TYPED_TEST(Conformance, BlocksOfEveryCodecPassThrough) {
  uint32_t seed = 20;
  for (const char* spec : {"raw", "fp8", "tq_prod:k2v2", "tq_prod:k4v4,layers=1:k8v8"}) {
    // Coded by the client in one chain, by the store in another.
    SampleChain coded(SampleLayout(), 2, spec, ++seed), raw(SampleLayout(), 2, spec, ++seed);
    ASSERT_TRUE(PutChain(this->store(), coded).ok()) << spec;
    EXPECT_EQ(GetAll(this->store(), coded.ns(), coded.identities).objects, coded.objects) << spec;
    PutOptions options;
    options.encode = spec;
    auto session = this->Begin(raw, raw.raw_announces(), options);
    for (uint32_t i : session->wanted()) {
      EXPECT_EQ(*WriteAndCommit(*session, i, raw.raw[i]), raw.objects[i].size()) << spec;
    }
    EXPECT_EQ(GetAll(this->store(), raw.ns(), raw.identities).objects, raw.objects) << spec;
  }
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

TYPED_TEST(Conformance, AShorterObjectMayBePut) {
  SampleChain chain(SampleLayout(), 1);
  BlockReader reader = *BlockReader::Open(chain.codec, chain.identities[0], chain.objects[0]);
  std::vector<uint8_t> shorter(chain.objects[0].begin(),
                               chain.objects[0].begin() + reader.slices().ObjectBytes(2));
  auto session = this->Begin(chain, {{chain.identities[0], shorter.size()}});
  ASSERT_TRUE(WriteAndCommit(*session, 0, shorter).ok());
  EXPECT_EQ(this->store().Lookup(chain.ns(), chain.keys(), {})->blocks[0].levels, 2u);
  EXPECT_EQ(GetAll(this->store(), chain.ns(), chain.identities).objects[0], shorter);
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

}  // namespace
}  // namespace quire::store

// KvStore.Lookup on the wire: keys one by one or packed, states one by one or in runs.
#include "gmock/gmock.h"
#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/wire/convert.h"
#include "tests/services/store/backends.h"
#include "tests/services/store/sample_chain.h"

namespace quire::store {
namespace {

class LookupForms : public testing::Test {
 protected:
  LookupForms() : served_(SmallStore()), chain_(SampleLayout(), 6) {
    stub_ = v1::KvStore::NewStub(served_.NewChannel());
    EXPECT_TRUE(PutChain(served_.engine(), chain_).ok());
  }
  v1::LookupRequest Request(bool packed, bool runs) const {
    v1::LookupRequest request;
    ToProto(chain_.ns(), request.mutable_namespace_());
    for (const Digest& key : chain_.keys()) {
      if (packed)
        request.mutable_packed_keys()->append(key.AsString());
      else
        request.add_keys(std::string(key.AsString()));
    }
    request.set_runs(runs);
    return request;
  }
  grpc::Status Lookup(const v1::LookupRequest& request) {
    grpc::ClientContext context;
    return stub_->Lookup(&context, request, &response_);
  }

  ServedStore served_;
  SampleChain chain_;
  std::unique_ptr<v1::KvStore::Stub> stub_;
  v1::LookupResponse response_;
};

TEST_F(LookupForms, AllSayTheSame) {
  ASSERT_TRUE(Lookup(Request(false, false)).ok());
  ASSERT_EQ(response_.blocks_size(), 6);
  EXPECT_EQ(response_.blocks(5).run(), 0u);
  std::vector<BlockState> plain = *StatesFromProto(response_.blocks(), 6);
  for (bool packed : {false, true}) {
    ASSERT_TRUE(Lookup(Request(packed, true)).ok());
    EXPECT_EQ(response_.prefix_blocks(), 6u);
    std::vector<BlockState> states = *StatesFromProto(response_.blocks(), 6);
    ASSERT_EQ(states.size(), 6u);
    // The first holds sinks, the others are of one size.
    ASSERT_EQ(response_.blocks_size(), 2);
    EXPECT_EQ(response_.blocks(1).run(), 5u);
    for (size_t i = 0; i < 6; ++i) {
      states[i].fetch_us = plain[i].fetch_us;  // learnt meanwhile
      EXPECT_EQ(states[i], plain[i]) << i;
    }
  }
}

TEST_F(LookupForms, RunsEndWhereStatesDiffer) {
  EXPECT_EQ(*served_.engine().Delete(chain_.ns(), {{chain_.keys()[4]}}, false), 1u);
  v1::LookupRequest request = Request(true, true);
  request.set_all(true);
  ASSERT_TRUE(Lookup(request).ok());
  EXPECT_EQ(response_.prefix_blocks(), 4u);
  std::vector<BlockState> states = *StatesFromProto(response_.blocks(), 6);
  ASSERT_EQ(states.size(), 6u);
  EXPECT_EQ(states[3].state, BlockState::kHit);
  EXPECT_EQ(states[4].state, BlockState::kMiss);
}

TEST_F(LookupForms, BadFormsAreRefused) {
  v1::LookupRequest both = Request(true, false);
  both.add_keys(std::string(32, 'k'));
  EXPECT_EQ(Lookup(both).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  v1::LookupRequest uneven = Request(true, false);
  uneven.mutable_packed_keys()->pop_back();
  EXPECT_EQ(Lookup(uneven).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  v1::LookupRequest many = Request(true, true);
  many.set_packed_keys(std::string(65537 * 32, 'k'));
  EXPECT_EQ(Lookup(many).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST(StatesFromProto, BelievesNoMoreThanWasAskedFor) {
  google::protobuf::RepeatedPtrField<v1::BlockState> messages;
  messages.Add()->set_run(UINT32_MAX);
  EXPECT_EQ(StatesFromProto(messages, 512).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace quire::store

// KvStore.Put as a client of another language speaks it, well and badly.
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "quire/v1/kv_store.grpc.pb.h"
#include "services/store/api/limits.h"
#include "services/store/wire/convert.h"
#include "tests/services/store/backends.h"
#include "tests/services/store/sample_chain.h"

namespace quire::store {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

class PutStream : public testing::Test {
 protected:
  explicit PutStream(StoreServicesOptions services = {})
      : chain_(SampleLayout(), 3), served_(SmallStore(), services) {
    stub_ = v1::KvStore::NewStub(served_.NewChannel());
    EXPECT_TRUE(served_.engine().RegisterLayout(chain_.layout).ok());
  }

  v1::PutRequest Announce(std::vector<BlockAnnounce> blocks) {
    v1::PutRequest request;
    ToProto(chain_.ns(), request.mutable_announce()->mutable_namespace_());
    for (const BlockAnnounce& block : blocks)
      ToProto(block.identity, block.bytes, request.mutable_announce()->add_blocks());
    return request;
  }
  static v1::PutRequest Chunk(uint32_t block, uint64_t offset, Bytes data) {
    v1::PutRequest request;
    request.mutable_data()->set_block(block);
    request.mutable_data()->set_offset(offset);
    request.mutable_data()->set_data(std::string(AsString(data)));
    return request;
  }

  struct Outcome {
    grpc::Status status;
    std::vector<v1::PutResponse> responses;
  };
  // Sends all requests, ends the stream and collects what the server says.
  Outcome Send(const std::vector<v1::PutRequest>& requests) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    auto stream = stub_->Put(&context);
    for (const v1::PutRequest& request : requests) {
      if (!stream->Write(request)) break;
    }
    stream->WritesDone();
    Outcome outcome;
    for (v1::PutResponse response; stream->Read(&response);) outcome.responses.push_back(response);
    outcome.status = stream->Finish();
    return outcome;
  }
  void ExpectRefused(const std::vector<v1::PutRequest>& requests, StatusCode code, const std::string& text) {
    Outcome outcome = Send(requests);
    EXPECT_EQ(outcome.status.error_code(), code) << outcome.status.error_message();
    EXPECT_THAT(outcome.status.error_message(), HasSubstr(text));
    AwaitNoSessions(served_.engine());
    EXPECT_EQ(UsedBytes(served_.engine()), 0u);
    EXPECT_EQ(served_.engine().Stats()->blocks_stored, 0u);
  }

  SampleChain chain_;
  ServedStore served_;
  std::unique_ptr<v1::KvStore::Stub> stub_;
};

TEST_F(PutStream, GivesOneResultAWantedBlockInTheOrderTheyWereCompleted) {
  std::vector<v1::PutRequest> requests = {Announce(chain_.announces())};
  Bytes first = chain_.objects[0], second = chain_.objects[1];
  requests.push_back(Chunk(1, 0, second.first(100)));
  requests.push_back(Chunk(0, 0, first));
  requests.push_back(Chunk(1, 100, second.subspan(100)));
  std::vector<uint8_t> forged = chain_.objects[2];
  forged[forged.size() / 2] ^= 1;
  requests.push_back(Chunk(2, 0, forged));
  Outcome outcome = Send(requests);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  ASSERT_EQ(outcome.responses.size(), 4u);
  EXPECT_THAT(outcome.responses[0].wanted().blocks(), testing::ElementsAre(0, 1, 2));
  EXPECT_EQ(outcome.responses[1].result().block(), 0u);
  EXPECT_EQ(outcome.responses[1].result().stored_bytes(), first.size());
  EXPECT_EQ(outcome.responses[2].result().block(), 1u);
  EXPECT_EQ(outcome.responses[2].result().code(), 0);
  EXPECT_EQ(outcome.responses[3].result().block(), 2u);
  EXPECT_EQ(outcome.responses[3].result().code(), StatusCode::DATA_LOSS);
  EXPECT_EQ(StoredPrefix(served_.engine(), chain_), 2u);
}

TEST_F(PutStream, RefusesStreamsThatDoNotBeginWithAnAnnouncement) {
  ExpectRefused({}, StatusCode::INVALID_ARGUMENT, "without an announcement");
  ExpectRefused({Chunk(0, 0, chain_.objects[0])}, StatusCode::INVALID_ARGUMENT,
                "begins with an announcement");
  ExpectRefused({Announce(chain_.announces()), Announce(chain_.announces())}, StatusCode::INVALID_ARGUMENT,
                "only data");
  ExpectRefused({v1::PutRequest()}, StatusCode::INVALID_ARGUMENT, "begins with an announcement");
}

TEST_F(PutStream, RefusesChunksOutOfOrderTooLongOrOfOtherBlocks) {
  Bytes object = chain_.objects[0];
  v1::PutRequest announce = Announce(chain_.announces());
  ExpectRefused({announce, Chunk(0, 16, object)}, StatusCode::INVALID_ARGUMENT,
                "offset 16 where 0 comes next");
  ExpectRefused({announce, Chunk(0, 0, object.first(64)), Chunk(0, 0, object.first(64))},
                StatusCode::INVALID_ARGUMENT, "offset 0 where 64 comes next");
  ExpectRefused({announce, Chunk(3, 0, object)}, StatusCode::INVALID_ARGUMENT, "block 3: 3 were announced");
  ExpectRefused({announce, Chunk(UINT32_MAX, 0, object)}, StatusCode::INVALID_ARGUMENT, "block 4294967295");
  ExpectRefused({announce, Chunk(0, UINT64_MAX, object)}, StatusCode::INVALID_ARGUMENT,
                "offset 18446744073709551615");
  ExpectRefused({announce, Chunk(0, 0, {})}, StatusCode::INVALID_ARGUMENT, "without data");
  ExpectRefused({announce, Chunk(0, 0, std::vector<uint8_t>(kChunkBytes + 1))}, StatusCode::INVALID_ARGUMENT,
                "at most 1048576");
  ExpectRefused({announce, Chunk(0, 0, std::vector<uint8_t>(kChunkBytes))}, StatusCode::INVALID_ARGUMENT,
                "announced");
}

TEST_F(PutStream, RefusesMoreThanAReceiveLimit) {
  ExpectRefused({Announce(chain_.announces()), Chunk(0, 0, std::vector<uint8_t>(5 << 20))},
                StatusCode::RESOURCE_EXHAUSTED, "larger than max");
}

TEST_F(PutStream, SaysWhichBlockWasCutShort) {
  ExpectRefused({Announce(chain_.announces()), Chunk(0, 0, Bytes(chain_.objects[0]).first(777))},
                StatusCode::INVALID_ARGUMENT, "block 0: the stream ended after 777 of");
}

TEST_F(PutStream, ABlockThatIsNotSentIsNoError) {
  Outcome outcome = Send({Announce(chain_.announces()), Chunk(0, 0, chain_.objects[0])});
  EXPECT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  EXPECT_EQ(outcome.responses.size(), 2u);
  EXPECT_EQ(StoredPrefix(served_.engine(), chain_), 1u);
}

TEST_F(PutStream, RefusesMalformedAnnouncements) {
  v1::PutRequest request = Announce(chain_.announces());
  request.mutable_announce()->mutable_blocks(1)->set_key("short");
  ExpectRefused({request}, StatusCode::INVALID_ARGUMENT, "block 1: key has 5 bytes");
  request = Announce(chain_.announces());
  request.mutable_announce()->mutable_namespace_()->set_fingerprint("");
  ExpectRefused({request}, StatusCode::INVALID_ARGUMENT, "fingerprint has 0 bytes");
  request = Announce(chain_.announces());
  request.mutable_announce()->mutable_namespace_()->set_tenant(std::string(257, 'a'));
  ExpectRefused({request}, StatusCode::INVALID_ARGUMENT, "at most 256");
  ExpectRefused({Announce(std::vector<BlockAnnounce>(kMaxBlocks + 1, chain_.announces()[0]))},
                StatusCode::INVALID_ARGUMENT, "4097 blocks");
  request = Announce(chain_.announces());
  request.mutable_announce()->set_ttl_ms(kMaxTtlMs + 1);
  ExpectRefused({request}, StatusCode::INVALID_ARGUMENT, absl::StrCat("ttl_ms ", kMaxTtlMs + 1));
  request = Announce(chain_.announces());
  request.mutable_announce()->mutable_part()->set_layer_end(UINT32_MAX);
  ExpectRefused({request}, StatusCode::INVALID_ARGUMENT, "part");
}

TEST_F(PutStream, ACancelledStreamLeavesNothing) {
  grpc::ClientContext context;
  auto stream = stub_->Put(&context);
  v1::PutResponse response;
  ASSERT_TRUE(stream->Write(Announce(chain_.announces())) && stream->Read(&response));
  ASSERT_TRUE(stream->Write(Chunk(0, 0, Bytes(chain_.objects[0]).first(1000))));
  EXPECT_EQ(served_.engine().Stats()->put_sessions, 1u);
  context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::CANCELLED);
  AwaitNoSessions(served_.engine());
  EXPECT_EQ(UsedBytes(served_.engine()), 0u);
  EXPECT_TRUE(PutChain(served_.engine(), chain_).ok());
}

TEST_F(PutStream, ACallPastItsDeadlineLeavesNothing) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(100));
  auto stream = stub_->Put(&context);
  stream->Write(Announce(chain_.announces()));
  stream->Write(Chunk(0, 0, Bytes(chain_.objects[0]).first(1000)));
  v1::PutResponse response;
  while (stream->Read(&response)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::DEADLINE_EXCEEDED);
  AwaitNoSessions(served_.engine());
  EXPECT_EQ(UsedBytes(served_.engine()), 0u);
}

class IdlePutStream : public PutStream {
 protected:
  IdlePutStream() : PutStream(StoreServicesOptions{.stream_idle_limit = std::chrono::milliseconds(50)}) {}
};

TEST_F(IdlePutStream, IsEndedByTheServer) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  auto stream = stub_->Put(&context);
  v1::PutResponse response;
  ASSERT_TRUE(stream->Write(Announce(chain_.announces())) && stream->Read(&response));
  stream->Write(Chunk(0, 0, Bytes(chain_.objects[0]).first(1000)));
  EXPECT_FALSE(stream->Read(&response));  // blocks until the server has had enough
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::CANCELLED);
  AwaitNoSessions(served_.engine());
  EXPECT_EQ(UsedBytes(served_.engine()), 0u);
}

}  // namespace
}  // namespace quire::store

// Draining: what is refused, what finishes, what is cut off.
#include <atomic>
#include <thread>

#include "gmock/gmock.h"
#include "quire/v1/store_admin.grpc.pb.h"
#include "services/store/client/admin_client.h"
#include "services/store/client/event_stream.h"
#include "services/store/client/remote_store.h"
#include "tests/services/store/backends.h"
#include "tests/services/store/sample_chain.h"

namespace quire::store {
namespace {

using absl::StatusCode;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

class DrainTest : public testing::Test {
 protected:
  DrainTest() : chain_(SampleLayout(), 3), served_(SmallStore()), admin_(served_.NewChannel(), seconds(60)) {
    RemoteStoreOptions once;
    once.max_tries = 1;
    once.arena_bytes = 1 << 20;
    store_ = std::make_unique<RemoteStore>(served_.NewChannel(), once);
    EXPECT_TRUE(store_->RegisterLayout(chain_.layout).ok());
  }
  absl::StatusCode BeginPut() {
    return store_->BeginPut(chain_.ns(), chain_.announces(), {}).status().code();
  }

  SampleChain chain_;
  ServedStore served_;
  AdminClient admin_;
  std::unique_ptr<RemoteStore> store_;
};

TEST_F(DrainTest, RefusesNewWritersAndGoesOnReading) {
  ASSERT_TRUE(PutChain(*store_, chain_).ok());
  int begun = 0;
  served_.services().OnDrain([&] { ++begun; });
  ASSERT_TRUE(admin_.Drain(seconds(20)).ok());
  EXPECT_EQ(begun, 1);
  EXPECT_EQ(BeginPut(), StatusCode::kUnavailable);
  EXPECT_EQ(EventStream::Open(served_.NewChannel(), {}).status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(StoredPrefix(*store_, chain_), 3u);
  EXPECT_EQ(GetAll(*store_, chain_.ns(), chain_.identities).objects, chain_.objects);
  EXPECT_TRUE(admin_.Drain(milliseconds(0)).ok());  // again
}

TEST_F(DrainTest, WaitsForRunningPuts) {
  auto session = *store_->BeginPut(chain_.ns(), chain_.announces(), {});
  ASSERT_TRUE(WriteAndCommit(*session, 0, chain_.objects[0]).ok());
  std::atomic<bool> drained = false;
  std::thread drain([&] {
    EXPECT_TRUE(admin_.Drain(seconds(30)).ok());
    drained = true;
  });
  while (BeginPut() != StatusCode::kUnavailable) std::this_thread::yield();  // the drain has begun
  EXPECT_TRUE(WriteAndCommit(*session, 1, chain_.objects[1]).ok());
  EXPECT_FALSE(drained);
  EXPECT_TRUE(WriteAndCommit(*session, 2, chain_.objects[2]).ok());
  session.reset();
  drain.join();
  EXPECT_EQ(StoredPrefix(*store_, chain_), 3u);
}

TEST_F(DrainTest, CutsOffAtTheDeadline) {
  auto session = *store_->BeginPut(chain_.ns(), chain_.announces(), {});
  ASSERT_TRUE(session->Write(0, 0, chain_.objects[0]).ok());
  absl::Status status = admin_.Drain(milliseconds(1));
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("1 puts were still running after 1 ms"));
  EXPECT_FALSE(session->Commit(0).ok());
  session.reset();
  AwaitNoSessions(served_.engine());
  EXPECT_EQ(UsedBytes(served_.engine()), 0u);
}

TEST_F(DrainTest, EndsWatchesAndArenas) {
  auto events = *EventStream::Open(served_.NewChannel(), {});
  ASSERT_NE(store_->arena(), nullptr);
  ASSERT_TRUE(admin_.Drain(seconds(20)).ok());
  absl::Status end = events->Next().status();
  EXPECT_EQ(end.code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(end.message()), HasSubstr("draining"));
  while (served_.arenas().used_bytes() > 0) std::this_thread::yield();
}

TEST_F(DrainTest, RefusesADeadlineOfAges) {
  auto stub = v1::StoreAdmin::NewStub(served_.NewChannel());
  grpc::ClientContext context;
  v1::DrainRequest request;
  request.set_deadline_ms(UINT64_MAX);
  v1::DrainResponse response;
  EXPECT_EQ(stub->Drain(&context, request, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(BeginPut(), StatusCode::kOk);  // nothing has begun
}

}  // namespace
}  // namespace quire::store

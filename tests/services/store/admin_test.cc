// StoreAdmin over a real server: quotas, a tenant's end, scrubbing.
#include "gmock/gmock.h"
#include "quire/v1/store_admin.grpc.pb.h"
#include "services/store/client/admin_client.h"
#include "tests/services/store/backends.h"
#include "tests/services/store/sample_chain.h"

namespace quire::store {
namespace {

using absl::StatusCode;

class AdminTest : public testing::Test {
 protected:
  AdminTest() : chain_(SampleLayout(), 4) {
    LocalStoreOptions options = SmallStore();
    options.enable_faults = true;
    served_ = std::make_unique<ServedStore>(options);
    admin_ = std::make_unique<AdminClient>(served_->NewChannel(), std::chrono::seconds(20));
  }
  LocalStore& engine() { return served_->engine(); }

  SampleChain chain_;
  std::unique_ptr<ServedStore> served_;
  std::unique_ptr<AdminClient> admin_;
};

TEST_F(AdminTest, QuotasAreSetShownAndKept) {
  EXPECT_EQ(*admin_->Quota("a"), 0u);
  EXPECT_EQ(*admin_->SetQuota("a", 3 * chain_.objects[0].size()), 3 * chain_.objects[0].size());
  EXPECT_EQ(*admin_->Quota("a"), 3 * chain_.objects[0].size());
  EXPECT_EQ(*admin_->Quota("b"), 0u);
  EXPECT_EQ(PutChain(engine(), chain_, "b"), absl::OkStatus());
  (void)PutChain(engine(), chain_, "a");  // the fourth block has no place beside its own chain
  EXPECT_LE(*engine().StoredBytes("a"), 3 * chain_.objects[0].size());
  EXPECT_EQ(StoredPrefix(engine(), chain_, "b"), 4u);
  EXPECT_EQ(admin_->SetQuota(std::string(257, 't'), 1).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(AdminTest, ATenantIsDeletedAndNoOther) {
  ASSERT_TRUE(PutChain(engine(), chain_, "a").ok());
  ASSERT_TRUE(PutChain(engine(), chain_, "b").ok());
  ASSERT_EQ(*engine().Pin(chain_.ns("a"), chain_.keys()), 4u);
  EXPECT_EQ(*admin_->DeleteTenant("a"), 4u);
  EXPECT_EQ(StoredPrefix(engine(), chain_, "a"), 0u);
  EXPECT_EQ(StoredPrefix(engine(), chain_, "b"), 4u);
  EXPECT_EQ(*admin_->DeleteTenant("a"), 0u);
  EXPECT_EQ(*admin_->DeleteTenant("nobody"), 0u);
}

TEST_F(AdminTest, VerifyLooksAtAllOfATier) {
  ASSERT_TRUE(PutChain(engine(), chain_).ok());
  uint64_t bytes = 0;
  for (const auto& object : chain_.objects) bytes += object.size();
  int told = 0;
  auto look_on = [&](const VerifyProgress&) { return ++told > 0; };
  for (Tier tier : {Tier::kNone, Tier::kHost}) {
    VerifyProgress whole = *admin_->Verify(tier, 0, look_on);
    EXPECT_EQ(whole.blocks, 4u);
    EXPECT_EQ(whole.bytes, bytes);
    EXPECT_EQ(whole.failures, 0u);
    EXPECT_EQ(whole.progress, 1);
  }
  EXPECT_GE(told, 2);
  EXPECT_EQ(admin_->Verify(Tier::kDisk, 0, look_on)->blocks, 0u);
}

TEST_F(AdminTest, VerifyEndsWithItsClient) {
  ASSERT_TRUE(PutChain(engine(), chain_).ok());
  auto stub = v1::StoreAdmin::NewStub(served_->NewChannel());
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  v1::VerifyRequest request;
  request.set_bytes_per_second(1);  // days
  auto stream = stub->Verify(&context, request);
  v1::VerifyResponse response;
  while (stream->Read(&response)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  // The server's stop does not wait for it.
  served_->Stop();
}

TEST_F(AdminTest, WrongArgumentsAreRefused) {
  auto stub = v1::StoreAdmin::NewStub(served_->NewChannel());
  grpc::ClientContext context;
  v1::VerifyRequest request;
  request.set_tier(static_cast<v1::Tier>(99));
  auto stream = stub->Verify(&context, request);
  v1::VerifyResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(admin_->InjectFault("no such point", 1).code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace quire::store

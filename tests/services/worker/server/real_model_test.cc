// The real model behind the Inference service, with a store in the same process: an RPC and Torch's matrix
// products in one process that ends well, and a prefix restored from the store that gives the text of the
// recomputed one.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

#include "services/runtime/server.h"
#include "services/store/engine/local_store.h"
#include "services/worker/server/inference_service.h"

namespace quire::worker {
namespace {

constexpr uint32_t kAnswerTokens = 12;

class RealModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* path = std::getenv("QUIRE_MODEL");
    ASSERT_NE(path, nullptr) << "QUIRE_MODEL names the model";
    // With codec raw a restored prefix is bit for bit what was computed.
    CodecSpec raw = *CodecSpec::Parse("raw");
    EngineOptions options;
    options.model_path = path;
    options.kv_codec = raw;
    options.threads = 2;
    options.max_context = 2048;
    auto engine = Engine::Load(options, [](const std::string&, double) {});
    ASSERT_TRUE(engine.ok()) << engine.status();
    store::LocalStoreOptions store_options;
    store_options.host_bytes = uint64_t{64} << 20;
    auto store = store::LocalStore::Create(store_options);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *store;
    ASSERT_TRUE(service_.Serve(*std::move(engine), store_, raw, {}).ok());
    auto server = runtime::Server::Start({}, {&service_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    auto channel = runtime::NewChannel(server_->address());
    ASSERT_TRUE(channel.ok()) << channel.status();
    stub_ = v1::Inference::NewStub(*channel);
  }

  struct Answer {
    std::string text;
    v1::Usage usage;
  };
  Answer Ask(const std::string& question, v1::CacheUse cache) {
    v1::GenerateRequest request;
    v1::ChatMessage* message = request.mutable_chat()->add_messages();
    message->set_role("user");
    std::string facts;
    for (int i = 0; i < 20; ++i)
      facts += "Box " + std::to_string(i) + " holds " + std::to_string(i * 7 % 10) + " red coins. ";
    message->set_content(facts + question);
    request.mutable_sampling()->set_temperature(0);
    request.set_max_tokens(kAnswerTokens);
    request.set_cache(cache);
    grpc::ClientContext context;
    auto reader = stub_->Generate(&context, request);
    Answer out;
    for (v1::GenerateResponse m; reader->Read(&m);) {
      out.text += m.text();
      out.usage = m.usage();
    }
    grpc::Status status = reader->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
    return out;
  }

  std::shared_ptr<store::LocalStore> store_;
  InferenceService service_{std::make_shared<prometheus::Registry>()};
  std::unique_ptr<runtime::Server> server_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

TEST_F(RealModelTest, ARestoredPrefixGivesTheRecomputedText) {
  Answer recomputed = Ask("How many coins are in box 3?", v1::CACHE_BYPASS);
  EXPECT_EQ(recomputed.usage.cached_tokens(), 0u);
  EXPECT_FALSE(recomputed.text.empty());

  Answer other = Ask("Which box is empty?", v1::CACHE_READ_WRITE);
  EXPECT_EQ(other.usage.cached_tokens(), 0u);
  // The offload goes on in the background.
  uint64_t wanted = (other.usage.prompt_tokens() - 1) / 64;
  while (store_->Stats()->blocks_stored < wanted) std::this_thread::yield();

  Answer restored = Ask("How many coins are in box 3?", v1::CACHE_READ_ONLY);
  EXPECT_EQ(restored.text, recomputed.text);
  // All of the shared beginning: the questions are in the last block.
  EXPECT_GE(restored.usage.cached_tokens(), (recomputed.usage.prompt_tokens() - 1) / 64 * 64 - 64);
  EXPECT_GE(restored.usage.cached_tokens(), 128u);
}

}  // namespace
}  // namespace quire::worker

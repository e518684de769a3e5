#include "services/worker/server/inference_service.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "services/runtime/server.h"
#include "services/store/engine/local_store.h"
#include "tests/services/worker/scheduler/fake_engine.h"

namespace quire::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::chrono::seconds kPatience{60};

struct Reply {
  std::vector<v1::GenerateResponse> messages;
  grpc::Status status;
  std::string text() const {
    std::string out;
    for (const auto& m : messages) out += m.text();
    return out;
  }
  const v1::GenerateResponse& last() const { return messages.back(); }
};

class InferenceServiceTest : public ::testing::Test {
 protected:
  void Start() {
    auto server = runtime::Server::Start({}, {service_.get()});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = v1::Inference::NewStub(server_->InProcessChannel());
  }
  void Serve(SchedulerOptions options = {}) {
    ASSERT_TRUE(service_->Serve(engine_, store_, CodecSpec(), options).ok());
    Start();
  }
  void TearDown() override {
    if (server_ != nullptr) server_->Shutdown(std::chrono::milliseconds(0));
  }

  static v1::GenerateRequest Request(const std::string& text, uint32_t max_tokens = 5) {
    v1::GenerateRequest r;
    r.set_text(text);
    r.set_max_tokens(max_tokens);
    r.mutable_sampling()->set_temperature(0);
    return r;
  }
  Reply Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kPatience);
    auto reader = stub_->Generate(&context, request);
    Reply out;
    for (v1::GenerateResponse m; reader->Read(&m);) out.messages.push_back(m);
    out.status = reader->Finish();
    return out;
  }
  // The message of the INVALID_ARGUMENT that a changed request gets.
  template <typename Change>
  std::string Refusal(Change change) {
    v1::GenerateRequest r = Request("abc");
    change(r);
    Reply reply = Generate(r);
    EXPECT_EQ(reply.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << reply.status.error_message();
    EXPECT_TRUE(reply.messages.empty());
    return reply.status.error_message();
  }
  v1::LoadResponse Load() {
    grpc::ClientContext context;
    v1::LoadResponse response;
    EXPECT_TRUE(stub_->Load(&context, {}, &response).ok());
    return response;
  }

  std::shared_ptr<FakeEngine> engine_ = std::make_shared<FakeEngine>(/*context=*/1024);
  std::shared_ptr<store::KvStore> store_;
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  std::unique_ptr<InferenceService> service_ = std::make_unique<InferenceService>(registry_);
  std::unique_ptr<runtime::Server> server_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

TEST_F(InferenceServiceTest, UnavailableUntilServed) {
  Start();
  Reply reply = Generate(Request("abc"));
  EXPECT_EQ(reply.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(reply.status.error_message(), HasSubstr("loading"));
  grpc::ClientContext context;
  v1::DescribeModelResponse model;
  EXPECT_EQ(stub_->DescribeModel(&context, {}, &model).error_code(), grpc::StatusCode::UNAVAILABLE);

  ASSERT_TRUE(service_->Serve(engine_, nullptr, CodecSpec(), {}).ok());
  EXPECT_TRUE(Generate(Request("abc")).status.ok());
  EXPECT_FALSE(service_->Serve(engine_, nullptr, CodecSpec(), {}).ok());
}

TEST_F(InferenceServiceTest, Generates) {
  engine_->next = Writes(ByteTokens("hello"), 3);
  Serve();
  Reply reply = Generate(Request("abc", 0));
  ASSERT_TRUE(reply.status.ok()) << reply.status.error_message();
  EXPECT_EQ(reply.text(), "hello");
  EXPECT_EQ(reply.last().finish(), v1::STOP);
  EXPECT_EQ(reply.last().usage().prompt_tokens(), 3u);
  EXPECT_EQ(reply.last().usage().completion_tokens(), 6u);
  EXPECT_GT(reply.last().usage().prefill_us(), 0u);
  EXPECT_THAT(reply.messages[0].request_id(), HasSubstr("gen-"));
  std::vector<uint32_t> tokens;
  for (size_t i = 0; i < reply.messages.size(); ++i) {
    const auto& m = reply.messages[i];
    tokens.insert(tokens.end(), m.tokens().begin(), m.tokens().end());
    EXPECT_EQ(m.request_id().empty(), i > 0);
    EXPECT_EQ(m.finish() == v1::NOT_FINISHED, i + 1 < reply.messages.size());
    EXPECT_EQ(m.logprobs_size(), 0);
  }
  EXPECT_EQ(tokens, ByteTokens("hello"));
}

TEST_F(InferenceServiceTest, PromptsOfAllKinds) {
  std::vector<uint32_t> seen;
  engine_->next = [&](std::span<const uint32_t> history) {
    seen.assign(history.begin(), history.end());
    return kEnd;
  };
  Serve();
  Generate(Request("a<|turn|>b"));
  EXPECT_THAT(seen, ElementsAre('a', kTurn, 'b'));

  v1::GenerateRequest request = Request("");
  for (uint32_t id : {7, 8, 9}) request.mutable_tokens()->add_ids(id);
  Generate(request);
  EXPECT_THAT(seen, ElementsAre(7, 8, 9));

  v1::ChatMessage* message = request.mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content("hi");
  Generate(request);
  std::vector<uint32_t> expected = {kTurn};
  for (uint32_t t : ByteTokens("user:hi")) expected.push_back(t);
  expected.push_back(kTurn);
  for (uint32_t t : ByteTokens("assistant:")) expected.push_back(t);
  EXPECT_EQ(seen, expected);
}

TEST_F(InferenceServiceTest, Logprobs) {
  engine_->next = Writes(ByteTokens("hey"), 3);
  Serve();
  v1::GenerateRequest request = Request("abc", 2);
  request.set_top_logprobs(3);
  Reply reply = Generate(request);
  std::vector<v1::TokenLogprobs> all;
  for (const auto& m : reply.messages) all.insert(all.end(), m.logprobs().begin(), m.logprobs().end());
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].text(), "h");
  EXPECT_EQ(all[0].token(), uint32_t{'h'});
  ASSERT_EQ(all[0].top_size(), 3);
  EXPECT_EQ(all[0].top(0).text(), "h");
  EXPECT_FLOAT_EQ(all[0].top(0).logprob(), all[0].logprob());
  request.set_top_logprobs(0);
  reply = Generate(request);
  ASSERT_GE(reply.messages[0].logprobs_size(), 1);
  EXPECT_EQ(reply.messages[0].logprobs(0).top_size(), 0);
}

TEST_F(InferenceServiceTest, RefusesWhatIsOutOfRange) {
  Serve();
  EXPECT_THAT(Refusal([](auto& r) { r.clear_text(); }), HasSubstr("prompt is missing"));
  EXPECT_THAT(Refusal([](auto& r) { r.set_text(""); }), HasSubstr("prompt has no tokens"));
  EXPECT_EQ(Refusal([](auto& r) { r.set_text(std::string(2000, 'a')); }),
            "prompt has 2000 tokens, the model's context is 1024");
  EXPECT_THAT(Refusal([](auto& r) { r.mutable_tokens()->add_ids(300); }),
              HasSubstr("prompt[0] is token 300"));
  EXPECT_THAT(Refusal([](auto& r) { r.mutable_chat(); }), HasSubstr("messages is empty"));
  EXPECT_THAT(Refusal([](auto& r) { r.mutable_sampling()->set_temperature(-1); }), HasSubstr("temperature"));
  EXPECT_THAT(Refusal([](auto& r) { r.mutable_sampling()->set_top_p(0); }), HasSubstr("top_p"));
  EXPECT_THAT(Refusal([](auto& r) { r.mutable_sampling()->set_min_p(2); }), HasSubstr("min_p"));
  EXPECT_THAT(Refusal([](auto& r) { r.mutable_sampling()->set_repetition_penalty(0); }),
              HasSubstr("repetition_penalty"));
  EXPECT_THAT(Refusal([](auto& r) { r.mutable_sampling()->set_frequency_penalty(3); }),
              HasSubstr("frequency_penalty"));
  EXPECT_THAT(Refusal([](auto& r) { r.mutable_sampling()->set_presence_penalty(NAN); }),
              HasSubstr("presence_penalty"));
  EXPECT_THAT(Refusal([](auto& r) { (*r.mutable_sampling()->mutable_logit_bias())[5000] = 1; }),
              HasSubstr("token 5000"));
  EXPECT_THAT(Refusal([](auto& r) { r.set_request_id(std::string(200, 'a')); }),
              HasSubstr("request_id has 200 bytes, the limit is 128"));
  EXPECT_THAT(Refusal([](auto& r) { r.set_tenant(std::string(300, 'a')); }), HasSubstr("tenant"));
  EXPECT_THAT(Refusal([](auto& r) { r.set_salt(std::string(300, '\xff')); }), HasSubstr("salt"));
  EXPECT_THAT(Refusal([](auto& r) { r.set_top_logprobs(21); }), HasSubstr("top_logprobs"));
  EXPECT_THAT(Refusal([](auto& r) { r.add_stop(""); }), HasSubstr("stop[0]"));
  EXPECT_THAT(Refusal([](auto& r) { r.add_stop_tokens(5000); }), HasSubstr("stop_tokens[0]"));
  EXPECT_THAT(Refusal([](auto& r) { r.set_cache(static_cast<v1::CacheUse>(9)); }), HasSubstr("cache is 9"));
  EXPECT_THAT(Refusal([](auto& r) {
                for (int i = 0; i < 17; ++i) r.add_stop("x");
              }),
              HasSubstr("stop has 17 strings, the limit is 16"));
  EXPECT_EQ(Load().running(), 0u);
}

TEST_F(InferenceServiceTest, AClientThatCancelsEndsItsGeneration) {
  Gate third;
  engine_->before = [&, at = 0](const FakeEngine::Call&) mutable {
    if (++at == 3) third.Wait();
    return absl::OkStatus();
  };
  Serve();
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Request("abc", 0));
  v1::GenerateResponse m;
  ASSERT_TRUE(reader->Read(&m));
  third.WaitForArrivals(1);
  context.TryCancel();
  while (reader->Read(&m)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  // The handler has told the scheduler once the server has let go of the call; the step under way then is the
  // last.
  server_->Shutdown(kPatience);
  third.Open();
  service_->Drain(std::chrono::milliseconds(kPatience));
  EXPECT_EQ(engine_->calls().size(), 3u);
}

TEST_F(InferenceServiceTest, ADeadlineEndsAGeneration) {
  Gate never;
  engine_->before = [&](const FakeEngine::Call&) {
    never.Wait();
    return absl::OkStatus();
  };
  Serve();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  auto reader = stub_->Generate(&context, Request("abc", 0));
  v1::GenerateResponse m;
  EXPECT_FALSE(reader->Read(&m));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  server_->Shutdown(kPatience);
  never.Open();
  service_->Drain(std::chrono::milliseconds(kPatience));
  EXPECT_EQ(engine_->calls().size(), 1u);
}

TEST_F(InferenceServiceTest, AbortAndLoad) {
  Gate gate;
  engine_->before = [&](const FakeEngine::Call&) {
    gate.Wait();
    return absl::OkStatus();
  };
  SchedulerOptions options;
  options.max_running = 1;
  options.max_waiting = 1;
  Serve(options);
  v1::GenerateRequest request = Request("abc", 0);
  request.set_request_id("one");
  grpc::ClientContext first_context, second_context;
  auto first = stub_->Generate(&first_context, request);
  gate.WaitForArrivals(1);
  request.set_request_id("two");
  auto second = stub_->Generate(&second_context, request);
  // Nothing announces that a request waits.
  while (Load().waiting() == 0) std::this_thread::yield();
  v1::LoadResponse load = Load();
  EXPECT_EQ(load.running(), 1u);
  EXPECT_EQ(load.max_running(), 1u);
  EXPECT_EQ(load.max_waiting(), 1u);
  EXPECT_FALSE(load.store_connected());
  request.set_request_id("three");
  EXPECT_EQ(Generate(request).status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);

  auto abort = [&](const std::string& id) {
    grpc::ClientContext context;
    v1::AbortRequest abort_request;
    abort_request.set_request_id(id);
    v1::AbortResponse response;
    EXPECT_TRUE(stub_->Abort(&context, abort_request, &response).ok());
    return response.found();
  };
  EXPECT_TRUE(abort("one"));
  EXPECT_TRUE(abort("two"));
  EXPECT_FALSE(abort("nobody"));
  gate.Open();
  for (auto* reader : {first.get(), second.get()}) {
    v1::GenerateResponse m, last;
    while (reader->Read(&m)) last = m;
    EXPECT_EQ(last.finish(), v1::ABORTED);
    EXPECT_TRUE(reader->Finish().ok());
  }
}

TEST_F(InferenceServiceTest, AFailingEngineSaysWhy) {
  engine_->before = [](const FakeEngine::Call& call) {
    return call.at < 4 ? absl::OkStatus() : absl::InternalError("broken");
  };
  Serve();
  Reply reply = Generate(Request("abc", 10));
  EXPECT_EQ(reply.status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_THAT(reply.status.error_message(), HasSubstr("broken"));
  EXPECT_EQ(reply.last().finish(), v1::FAILED);
  EXPECT_EQ(reply.last().usage().completion_tokens(), 2u);
}

TEST_F(InferenceServiceTest, PrefixFromTheStore) {
  store::LocalStoreOptions store_options;
  store_options.host_bytes = 16 << 20;
  store_ = *store::LocalStore::Create(store_options);
  Serve();
  EXPECT_TRUE(Load().store_connected());
  std::string prompt(300, 'q');
  Reply first = Generate(Request(prompt));
  EXPECT_EQ(first.last().usage().cached_tokens(), 0u);
  // The offload has ended once the worker is drained; a new one on the same store finds the blocks.
  service_->Drain(std::chrono::milliseconds(kPatience));
  EXPECT_EQ(Generate(Request(prompt)).status.error_code(), grpc::StatusCode::UNAVAILABLE);
  server_->Shutdown(kPatience);
  server_.reset();
  service_ = std::make_unique<InferenceService>(registry_ = std::make_shared<prometheus::Registry>());
  Serve();
  Reply second = Generate(Request(prompt));
  EXPECT_EQ(second.last().usage().cached_tokens(), 256u);
  EXPECT_EQ(second.text(), first.text());
  v1::GenerateRequest other = Request(prompt);
  other.set_salt("s");
  EXPECT_EQ(Generate(other).last().usage().cached_tokens(), 0u);
}

TEST_F(InferenceServiceTest, TokenizeAndBack) {
  Serve();
  v1::TokenizeRequest request;
  request.set_text("a<|end|>");
  request.set_parse_special(true);
  v1::TokenizeResponse tokens;
  grpc::ClientContext c1, c2, c3, c4;
  ASSERT_TRUE(stub_->Tokenize(&c1, request, &tokens).ok());
  EXPECT_THAT(tokens.tokens(), ElementsAre('a', kEnd));
  request.set_parse_special(false);
  ASSERT_TRUE(stub_->Tokenize(&c2, request, &tokens).ok());
  EXPECT_EQ(tokens.tokens_size(), 8);

  v1::DetokenizeRequest back;
  for (uint32_t t : {uint32_t{'h'}, kEnd, uint32_t{0xE9}}) back.add_tokens(t);
  back.set_skip_special(true);
  v1::DetokenizeResponse text;
  ASSERT_TRUE(stub_->Detokenize(&c3, back, &text).ok());
  EXPECT_EQ(text.text(), "h\xE9");
  back.add_tokens(4000);
  EXPECT_EQ(stub_->Detokenize(&c4, back, &text).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(InferenceServiceTest, RenderChat) {
  Serve();
  auto render = [&](auto change) {
    v1::RenderChatRequest request;
    v1::ChatMessage* m = request.add_messages();
    m->set_role("user");
    m->set_content("x\"y");
    change(request);
    grpc::ClientContext context;
    v1::RenderChatResponse response;
    grpc::Status status = stub_->RenderChat(&context, request, &response);
    return status.ok() ? response.text() : status.error_message();
  };
  EXPECT_EQ(render([](auto&) {}), "<|turn|>user:x\"y<|turn|>assistant:");
  EXPECT_EQ(render([](auto& r) { r.set_add_generation_prompt(false); }), "<|turn|>user:x\"y");
  EXPECT_EQ(render([](auto& r) {
              r.set_add_generation_prompt(false);
              r.set_tools_json(R"([{"name":"f"}])");
              r.set_variables_json(R"({"style":"dry"})");
            }),
            "<|turn|>user:x\"y[f](dry)");
  EXPECT_THAT(render([](auto& r) { r.set_tools_json("{}"); }), HasSubstr("tools_json must be a JSON array"));
  EXPECT_THAT(render([](auto& r) { r.set_tools_json("[1"); }), HasSubstr("tools_json is not valid JSON"));
  EXPECT_THAT(render([](auto& r) { r.set_variables_json("[]"); }),
              HasSubstr("variables_json must be a JSON object"));
  EXPECT_THAT(render([](auto& r) { r.set_tools_json(std::string(100000, '[')); }),
              HasSubstr("deeper than 64"));
  EXPECT_THAT(render([](auto& r) { r.clear_messages(); }), HasSubstr("messages is empty"));
  EXPECT_THAT(render([](auto& r) { r.mutable_messages(0)->set_role(""); }), HasSubstr("messages[0].role"));
  EXPECT_THAT(render([](auto& r) { r.mutable_messages(0)->set_role("bad"); }), HasSubstr("no such role"));
}

TEST_F(InferenceServiceTest, DescribeModelAndWhatIsNotThere) {
  Serve();
  grpc::ClientContext c1, c2, c3;
  v1::DescribeModelResponse model;
  ASSERT_TRUE(stub_->DescribeModel(&c1, {}, &model).ok());
  EXPECT_EQ(model.name(), "fake");
  EXPECT_EQ(model.context_tokens(), 1024u);
  EXPECT_EQ(model.vocabulary(), kFakeVocabulary);
  EXPECT_EQ(model.kv_codec(), "tq:k4v4");
  EXPECT_TRUE(model.has_chat_template());
  EXPECT_EQ(model.fingerprint(), engine_->info().fingerprint.AsString());
  EXPECT_EQ(model.model_digest().size(), 32u);
  EXPECT_THAT(model.eos_tokens(), ElementsAre(kEnd));
  EXPECT_GT(model.created(), 1'600'000'000);

  v1::ScoreResponse score;
  EXPECT_EQ(stub_->Score(&c2, {}, &score).error_code(), grpc::StatusCode::UNIMPLEMENTED);
  v1::EmbedResponse embed;
  EXPECT_EQ(stub_->Embed(&c3, {}, &embed).error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

}  // namespace
}  // namespace quire::worker

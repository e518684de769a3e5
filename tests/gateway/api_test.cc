// Every endpoint through HTTP, against a stub worker: response objects, streams, errors, metrics.
#include <gmock/gmock.h>

#include <regex>

#include "core/base/digest.h"
#include "tests/gateway/fixture.h"

namespace quire::gateway::test {
namespace {

using ApiTest = GatewayTest;
constexpr char kInvalid[] = "invalid_request_error";

TEST_F(ApiTest, ChatAnswersWithOpenAIsObject) {
  Reply reply = Post(port(), kChatPath, Chat());
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(reply.headers["content-type"], "application/json");
  EXPECT_TRUE(std::regex_match(reply.headers["x-request-id"], std::regex("req_[0-9a-f]{32}")));
  json body = reply.Json();
  EXPECT_TRUE(std::regex_match(body["id"].get<std::string>(), std::regex("chatcmpl-[0-9A-Za-z]{24}")));
  EXPECT_GT(body["created"], 1'700'000'000);
  body.erase("id");
  body.erase("created");
  EXPECT_EQ(body, json::parse(R"({
    "object": "chat.completion", "model": "stub", "system_fingerprint": "fp_ababababab",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello world", "refusal": null, "annotations": []},
                 "logprobs": null, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10,
              "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
              "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0,
                                            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}}})"));
}

TEST_F(ApiTest, CompletionAnswersWithOpenAIsObject) {
  Reply reply = Post(port(), kCompletionPath, Completion());
  ASSERT_EQ(reply.status, 200) << reply.body;
  json body = reply.Json();
  EXPECT_TRUE(std::regex_match(body["id"].get<std::string>(), std::regex("cmpl-[0-9A-Za-z]{24}")));
  EXPECT_EQ(body["object"], "text_completion");
  EXPECT_EQ(
      body["choices"],
      json::parse(R"([{"index": 0, "text": "Hello world", "logprobs": null, "finish_reason": "stop"}])"));
  EXPECT_EQ(body["usage"]["total_tokens"], 10);
}

TEST_F(ApiTest, StreamsChatInOpenAIsOrder) {
  bool done = false;
  auto events = PostStream(port(), kChatPath,
                           Chat({{"stream", true}, {"stream_options", {{"include_usage", true}}}}), &done);
  EXPECT_TRUE(done);
  ASSERT_EQ(events.size(), 6u);
  std::string text;
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i]["object"], "chat.completion.chunk");
    EXPECT_EQ(events[i]["id"], events[0]["id"]);
    EXPECT_EQ(events[i]["model"], "stub");
    if (i < 5) {
      EXPECT_TRUE(events[i].contains("usage") && events[i]["usage"].is_null());
      EXPECT_EQ(events[i]["choices"][0]["finish_reason"], i == 4 ? json("stop") : json());
    }
    if (i >= 1 && i <= 3) text += events[i]["choices"][0]["delta"]["content"].get<std::string>();
  }
  EXPECT_EQ(events[0]["choices"][0]["delta"],
            json::parse(R"({"role": "assistant", "content": "", "refusal": null})"));
  EXPECT_EQ(text, "Hello world");
  EXPECT_EQ(events[4]["choices"][0]["delta"], json::object());
  EXPECT_EQ(events[5]["choices"], json::array());
  EXPECT_EQ(events[5]["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
}

TEST_F(ApiTest, StreamsCompletionWithoutUsageUnlessAsked) {
  bool done = false;
  auto events = PostStream(port(), kCompletionPath, Completion({{"stream", true}}), &done);
  EXPECT_TRUE(done);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0]["object"], "text_completion");
  EXPECT_EQ(events[0]["choices"][0]["text"], "Hello");
  EXPECT_FALSE(events[0].contains("usage"));
  EXPECT_EQ(events[3]["choices"],
            json::parse(R"([{"index": 0, "text": "", "logprobs": null, "finish_reason": "stop"}])"));
}

TEST_F(ApiTest, StreamHeadIsOfAnEventStreamAndTheConnectionStays) {
  Client client(port());
  client.Send(RequestText("POST", kChatPath, Chat({{"stream", true}}).dump()));
  Reply reply = client.ReadReply();
  EXPECT_EQ(reply.status, 200);
  EXPECT_TRUE(reply.complete);
  EXPECT_EQ(reply.headers["content-type"], "text/event-stream; charset=utf-8");
  EXPECT_EQ(reply.headers["cache-control"], "no-cache");
  EXPECT_EQ(reply.headers["transfer-encoding"], "chunked");
  EXPECT_EQ(client.Request("GET", "/health").status, 200);
}

TEST_F(ApiTest, EachTokenLeavesAsItComes) {
  Event first, second;
  worker_.SetScript([&](grpc::ServerContext&, const v1::GenerateRequest&, StubWorker::Writer& writer) {
    writer.Write(TextMessage("a", {1}));
    EXPECT_TRUE(first.Wait());
    writer.Write(TextMessage("b", {2}));
    EXPECT_TRUE(second.Wait());
    writer.Write(FinishMessage(v1::LENGTH, 1, 2, 0));
    return grpc::Status::OK;
  });
  Client client(port());
  client.Send(RequestText("POST", kCompletionPath, Completion({{"stream", true}}).dump()));
  ASSERT_EQ(client.ReadHead().status, 200);
  EXPECT_EQ(json::parse(client.ReadEvent())["choices"][0]["text"], "a");
  first.Set();
  EXPECT_EQ(json::parse(client.ReadEvent())["choices"][0]["text"], "b");
  second.Set();
  EXPECT_EQ(json::parse(client.ReadEvent())["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(client.ReadEvent(), "[DONE]");
}

TEST_F(ApiTest, EveryParameterReachesTheWorker) {
  Reply reply = Post(port(), kChatPath,
                     Chat({{"temperature", 0.5},
                           {"top_p", 0.25},
                           {"top_k", 40},
                           {"min_p", 0.125},
                           {"presence_penalty", -1},
                           {"frequency_penalty", 1.5},
                           {"repetition_penalty", 1.25},
                           {"seed", 42},
                           {"logit_bias", {{"5", -100}, {"7", 1.5}}},
                           {"max_completion_tokens", 9},
                           {"stop", {"x", "yy"}},
                           {"stop_token_ids", {3}},
                           {"ignore_eos", true},
                           {"user", "u"},
                           {"logprobs", true},
                           {"top_logprobs", 2},
                           {"n", 1},
                           {"quire", {{"cache", "bypass"}}},
                           {"chat_template_kwargs", {{"a", 1}}},
                           {"unknown", {{"deep", "ignored"}}}}));
  ASSERT_EQ(reply.status, 200) << reply.body;
  v1::GenerateRequest got = worker_.last_request();
  EXPECT_EQ(got.sampling().temperature(), 0.5f);
  EXPECT_EQ(got.sampling().top_p(), 0.25f);
  EXPECT_EQ(got.sampling().top_k(), 40u);
  EXPECT_EQ(got.sampling().min_p(), 0.125f);
  EXPECT_EQ(got.sampling().presence_penalty(), -1.0f);
  EXPECT_EQ(got.sampling().frequency_penalty(), 1.5f);
  EXPECT_EQ(got.sampling().repetition_penalty(), 1.25f);
  EXPECT_EQ(got.sampling().seed(), 42u);
  EXPECT_EQ(got.sampling().logit_bias().at(5), -100.0f);
  EXPECT_EQ(got.sampling().logit_bias().at(7), 1.5f);
  EXPECT_EQ(got.max_tokens(), 9u);
  EXPECT_THAT(got.stop(), testing::ElementsAre("x", "yy"));
  EXPECT_THAT(got.stop_tokens(), testing::ElementsAre(3u));
  EXPECT_TRUE(got.ignore_eos());
  EXPECT_EQ(got.top_logprobs(), 2);
  EXPECT_EQ(got.cache(), v1::CACHE_BYPASS);
  EXPECT_EQ(got.chat().variables_json(), R"({"a":1})");
  EXPECT_EQ(got.chat().messages(0).content(), "Hi");
  EXPECT_EQ(got.request_id(), reply.headers["x-request-id"]);
  EXPECT_EQ(got.tenant(), "");
  EXPECT_EQ(got.salt().size(), 32u);
}

TEST_F(ApiTest, AbsentParametersAreAbsentAtTheWorker) {
  ASSERT_EQ(
      Post(port(), kChatPath, Chat({{"temperature", nullptr}, {"stop", nullptr}, {"max_tokens", nullptr}}))
          .status,
      200);
  v1::GenerateRequest got = worker_.last_request();
  EXPECT_FALSE(got.sampling().has_temperature());
  EXPECT_FALSE(got.sampling().has_seed());
  EXPECT_FALSE(got.has_top_logprobs());
  EXPECT_EQ(got.max_tokens(), 0u);
  EXPECT_EQ(got.cache(), v1::CACHE_READ_WRITE);
  EXPECT_TRUE(got.chat().add_generation_prompt());
  ASSERT_EQ(Post(port(), kCompletionPath, Completion()).status, 200);
  EXPECT_EQ(worker_.last_request().max_tokens(), 16u);  // OpenAI's default for this endpoint
}

TEST_F(ApiTest, CacheSaltSeparatesKeySpaces) {
  auto salt_of = [&](const json& more) {
    EXPECT_EQ(Post(port(), kChatPath, Chat(more)).status, 200);
    return worker_.last_request().salt();
  };
  const std::string none = salt_of(json::object());
  EXPECT_EQ(salt_of(json::object()), none);
  EXPECT_NE(salt_of({{"cache_salt", "a"}}), none);
  EXPECT_NE(salt_of({{"cache_salt", "a"}}), salt_of({{"cache_salt", "b"}}));
}

TEST_F(ApiTest, ContentPartsAndPromptForms) {
  json parts = json::parse(
      R"([{"role": "developer", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
                               {"role": "assistant", "content": null}, {"role": "user", "content": "é\u0000𝄞"}])");
  ASSERT_EQ(Post(port(), kChatPath, {{"model", "stub"}, {"messages", parts}}).status, 200);
  auto chat = worker_.last_request().chat();
  EXPECT_EQ(chat.messages(0).role(), "system");
  EXPECT_EQ(chat.messages(0).content(), "one\ntwo");
  EXPECT_EQ(chat.messages(1).content(), "");
  EXPECT_EQ(chat.messages(2).content(), std::string("é\0𝄞", 7));

  ASSERT_EQ(Post(port(), kCompletionPath, Completion({{"prompt", {"only"}}})).status, 200);
  EXPECT_EQ(worker_.last_request().text(), "only");
  for (json prompt : {json{1, 2, 3}, json{json{1, 2, 3}}}) {
    ASSERT_EQ(Post(port(), kCompletionPath, Completion({{"prompt", prompt}})).status, 200);
    EXPECT_THAT(worker_.last_request().tokens().ids(), testing::ElementsAre(1u, 2u, 3u));
  }
}

TEST_F(ApiTest, LogprobsInBothShapes) {
  worker_.SetScript([](grpc::ServerContext&, const v1::GenerateRequest&, StubWorker::Writer& writer) {
    for (const char* text : {"é", "\xF0\x9D", "b"}) {  // the second: half a character
      v1::GenerateResponse message = TextMessage(std::string(text) == "\xF0\x9D" ? "" : text, {1});
      v1::TokenLogprobs* token = message.add_logprobs();
      token->set_text(text);
      token->set_logprob(-0.5f);
      v1::TokenLogprobs* top = token->add_top();
      top->set_text("z");
      top->set_logprob(-std::numeric_limits<float>::infinity());
      writer.Write(message);
    }
    writer.Write(FinishMessage(v1::STOP, 1, 3, 0));
    return grpc::Status::OK;
  });
  json body = Post(port(), kChatPath, Chat({{"logprobs", true}, {"top_logprobs", 1}})).Json();
  json logprobs = body["choices"][0]["logprobs"];
  ASSERT_EQ(logprobs["content"].size(), 3u) << body;
  EXPECT_EQ(logprobs["content"][0], json::parse(R"({"token": "é", "logprob": -0.5, "bytes": [195, 169],
      "top_logprobs": [{"token": "z", "logprob": -9999.0, "bytes": [122]}]})"));
  EXPECT_EQ(logprobs["content"][1]["token"], "\uFFFD");
  EXPECT_EQ(logprobs["content"][1]["bytes"], json({0xF0, 0x9D}));
  EXPECT_TRUE(logprobs["refusal"].is_null());

  body = Post(port(), kCompletionPath, Completion({{"logprobs", 1}})).Json();
  logprobs = body["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], json({"é", "\uFFFD", "b"}));
  EXPECT_EQ(logprobs["token_logprobs"], json({-0.5, -0.5, -0.5}));
  EXPECT_EQ(logprobs["top_logprobs"][2], json({{"z", -9999.0}, {"b", -0.5}}));
  EXPECT_EQ(logprobs["text_offset"].size(), 3u);
  EXPECT_EQ(logprobs["text_offset"][1], 1);

  bool done = false;
  auto events = PostStream(port(), kChatPath, Chat({{"stream", true}, {"logprobs", true}}), &done);
  ASSERT_EQ(events.size(), 5u);
  EXPECT_EQ(events[2]["choices"][0]["delta"]["content"], "");
  EXPECT_EQ(events[2]["choices"][0]["logprobs"]["content"].size(), 1u);
}

TEST_F(ApiTest, Models) {
  EXPECT_EQ(
      Get(port(), "/v1/models").Json(),
      json::parse(
          R"({"object": "list", "data": [{"id": "stub", "object": "model", "created": 1700000000, "owned_by": "quire"}]})"));
  EXPECT_EQ(Get(port(), "/v1/models/stub").Json(),
            json::parse(R"({"id": "stub", "object": "model", "created": 1700000000, "owned_by": "quire"})"));
  ExpectError(Get(port(), "/v1/models/other"), 404, kInvalid, nullptr, "model_not_found");
}

TEST_F(ApiTest, ModelNamesMayHoldSlashesAndEscapes) {
  const int before = worker_.describes();
  worker_.SetModel([](v1::DescribeModelResponse* model) { model->set_name("org/mödel"); });
  ASSERT_TRUE(worker_.WaitForDescribes(before + 2));
  EXPECT_EQ(Get(port(), "/v1/models/org%2Fm%C3%B6del").status, 200);
  EXPECT_EQ(Get(port(), "/v1/models/org/m%c3%b6del").status, 200);
}

TEST_F(ApiTest, UnknownModelUrlAndMethod) {
  ExpectError(Post(port(), kChatPath, Chat({{"model", "gpt-9"}})), 404, kInvalid, nullptr, "model_not_found");
  ExpectError(Get(port(), "/v1/nothing"), 404, kInvalid, nullptr, "unknown_url");
  Reply reply = Get(port(), kChatPath);
  ExpectError(reply, 405, kInvalid, nullptr, "method_not_allowed");
  EXPECT_EQ(reply.headers["allow"], "POST");
  ExpectError(Post(port(), "/v1/models", json::object()), 405, kInvalid, nullptr, "method_not_allowed");
}

TEST_F(ApiTest, HeadHasNoBody) {
  Client client(port());
  Reply reply = client.Request("HEAD", "/v1/models");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(client.Request("GET", "/health").status, 200);  // nothing was left on the connection
}

TEST_F(ApiTest, BadBodies) {
  auto post = [&](std::string_view body) { return Client(port()).Request("POST", kChatPath, body); };
  for (std::string_view body : {"{", "nonsense", "{\"model\":\"stub\",}", "{\"model\":\"\xFF\"}", "[]", "3",
                                "\"x\"", "{\"a\":\"\\ud800\"}"}) {
    ExpectError(post(body), 400, kInvalid, nullptr, nullptr);
  }
  ExpectError(post(""), 400, kInvalid, nullptr, nullptr);
  ExpectError(post(std::string(100'000, '[')), 400, kInvalid, nullptr, nullptr);
  ExpectError(post("{}"), 400, kInvalid, "model", "missing_required_parameter");
}

TEST_F(ApiTest, TokenPromptTooLong) {
  ExpectError(Post(port(), kCompletionPath, Completion({{"prompt", std::vector<int>(60, 1)}})), 400, kInvalid,
              "prompt", "context_length_exceeded");
  ExpectError(Post(port(), kCompletionPath, Completion({{"prompt", {1, 1000}}})), 400, kInvalid, "prompt",
              "invalid_value");
  ExpectError(Post(port(), kCompletionPath, Completion({{"logit_bias", {{"1000", 1}}}})), 400, kInvalid,
              "logit_bias", "invalid_value");
}

struct WorkerErrorCase {
  grpc::StatusCode code;
  const char* message;
  int status;
  json type, param, error_code;
};

TEST_F(ApiTest, WorkerErrorsBeforeTheFirstToken) {
  const WorkerErrorCase cases[] = {
      {grpc::INVALID_ARGUMENT, "prompt has 70 tokens, the model's context is 64", 400, kInvalid, "messages",
       "context_length_exceeded"},
      {grpc::INVALID_ARGUMENT, "stop holds 17 strings", 400, kInvalid, nullptr, nullptr},
      {grpc::RESOURCE_EXHAUSTED, "the queue is full", 429, "requests", nullptr, "rate_limit_exceeded"},
      {grpc::INTERNAL, "no", 500, "server_error", nullptr, nullptr},
      {grpc::DEADLINE_EXCEEDED, "late", 504, "server_error", nullptr, nullptr},
      {grpc::UNAVAILABLE, "going down", 503, "server_error", nullptr, "service_unavailable"},
  };
  for (const auto& c : cases) {
    worker_.SetScript([&c](grpc::ServerContext&, const v1::GenerateRequest&, StubWorker::Writer&) {
      return grpc::Status(c.code, c.message);
    });
    for (bool stream : {false, true}) {
      ASSERT_TRUE(WaitUntilReady(port()));  // UNAVAILABLE takes the worker out until the next probe
      Reply reply = Post(port(), kChatPath, Chat({{"stream", stream}}));
      ExpectError(reply, c.status, c.type, c.param, c.error_code);
      EXPECT_EQ(reply.headers.count("retry-after"), c.status == 429 || c.status == 503 ? 1u : 0u);
    }
  }
}

TEST_F(ApiTest, WorkerErrorInsideAStreamIsAnEventAndTheEnd) {
  worker_.SetScript([](grpc::ServerContext&, const v1::GenerateRequest&, StubWorker::Writer& writer) {
    writer.Write(TextMessage("Hel", {1}));
    return grpc::Status(grpc::INTERNAL, "engine failed");
  });
  bool done = false;
  auto events = PostStream(port(), kChatPath, Chat({{"stream", true}}), &done);
  EXPECT_FALSE(done);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[1]["choices"][0]["delta"]["content"], "Hel");
  EXPECT_EQ(events[2]["error"]["type"], "server_error");
  EXPECT_EQ(events[2]["error"].size(), 4u);
  ExpectError(Post(port(), kChatPath, Chat()), 500, "server_error", nullptr, nullptr);
}

TEST_F(ApiTest, StreamWithoutAFinishIsAnError) {
  for (v1::FinishReason reason : {v1::NOT_FINISHED, v1::FAILED, v1::ABORTED}) {
    worker_.SetScript([reason](grpc::ServerContext&, const v1::GenerateRequest&, StubWorker::Writer& writer) {
      writer.Write(TextMessage("x", {1}));
      writer.Write(FinishMessage(reason, 1, 1, 0));
      return grpc::Status::OK;
    });
    ExpectError(Post(port(), kChatPath, Chat()), 500, "server_error", nullptr, nullptr);
  }
}

TEST_F(ApiTest, MetricsStartAtZeroAndCount) {
  EXPECT_EQ(Metric(R"(quire_gateway_requests_total{route="/v1/chat/completions",status="200"})"), 0);
  EXPECT_EQ(Metric("quire_gateway_completion_tokens_total"), 0);
  EXPECT_EQ(Metric("quire_gateway_time_to_first_token_seconds_count"), 0);
  EXPECT_EQ(Metric("quire_gateway_worker_ready{worker=\"" + worker_.address() + "\"}"), 1);
  bool done = false;
  PostStream(port(), kChatPath, Chat({{"stream", true}}), &done);
  Post(port(), kChatPath, Chat());
  Post(port(), kChatPath, json::object());
  EXPECT_TRUE(Reaches(R"(quire_gateway_requests_total{route="/v1/chat/completions",status="400"})", 1));
  EXPECT_TRUE(Reaches(R"(quire_gateway_requests_total{route="/v1/chat/completions",status="200"})", 2));
  EXPECT_TRUE(Reaches("quire_gateway_prompt_tokens_total", 14));
  EXPECT_TRUE(Reaches("quire_gateway_completion_tokens_total", 6));
  EXPECT_TRUE(Reaches("quire_gateway_cached_tokens_total", 8));
  EXPECT_TRUE(Reaches("quire_gateway_time_to_first_token_seconds_count", 2));
  EXPECT_TRUE(Reaches("quire_gateway_inter_token_seconds_count", 4));
  EXPECT_TRUE(Reaches("quire_gateway_active_streams", 0));
}

}  // namespace
}  // namespace quire::gateway::test

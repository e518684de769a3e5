// What goes wrong around a request: clients that leave, workers that die, start late or come back, a gateway
// that stops.
#include <gmock/gmock.h>

#include <atomic>
#include <thread>

#include "tests/gateway/fixture.h"

namespace quire::gateway::test {
namespace {

using FailureTest = GatewayTest;

class LeavingClientTest : public GatewayTest,
                          public testing::WithParamInterface<std::tuple<bool, void (Client::*)()>> {};

TEST_P(LeavingClientTest, CancelsItsGenerationAtOnce) {
  const auto& [stream, leave] = GetParam();
  Event begun, cancelled;
  worker_.SetScript(
      [&](grpc::ServerContext& context, const v1::GenerateRequest&, StubWorker::Writer& writer) {
        writer.Write(TextMessage("first", {1}));
        begun.Set();
        if (WaitForCancellation(context)) cancelled.Set();
        return grpc::Status::CANCELLED;
      });
  Client client(port());
  client.Send(RequestText("POST", kChatPath, Chat({{"stream", stream}}).dump()));
  ASSERT_TRUE(begun.Wait());
  if (stream) {
    ASSERT_EQ(client.ReadHead().status, 200);
    client.ReadEvent();
  }
  (client.*leave)();
  EXPECT_TRUE(cancelled.Wait());
  EXPECT_TRUE(Reaches(R"(quire_gateway_requests_total{route="/v1/chat/completions",status="499"})", 1));
  EXPECT_TRUE(Reaches("quire_gateway_active_requests", 0));
  EXPECT_TRUE(Reaches("quire_gateway_active_streams", 0));
}
INSTANTIATE_TEST_SUITE_P(Ways, LeavingClientTest,
                         testing::Combine(testing::Bool(), testing::Values(&Client::Close, &Client::Reset,
                                                                           &Client::ShutdownSend)));

TEST_F(FailureTest, AClientThatLeavesBeforeTheFirstToken) {
  Event begun, cancelled;
  worker_.SetScript([&](grpc::ServerContext& context, const v1::GenerateRequest&, StubWorker::Writer&) {
    begun.Set();
    if (WaitForCancellation(context)) cancelled.Set();
    return grpc::Status::CANCELLED;
  });
  Client client(port());
  client.Send(RequestText("POST", kChatPath, Chat().dump()));
  ASSERT_TRUE(begun.Wait());
  client.Close();
  EXPECT_TRUE(cancelled.Wait());
}

// The worker writes without end; a client that does not read must make it stop writing, and its leaving must
// end it.
TEST_F(FailureTest, ASlowReaderSlowsTheWorker) {
  std::atomic<int64_t> written = 0;
  Event over;
  worker_.SetScript([&](grpc::ServerContext&, const v1::GenerateRequest&, StubWorker::Writer& writer) {
    const v1::GenerateResponse message = TextMessage(std::string(10'000, 'x'), {1});
    while (writer.Write(message)) ++written;
    over.Set();
    return grpc::Status::CANCELLED;
  });
  Client client(port());
  client.ShrinkReceiveBuffer(4096);
  client.Send(RequestText("POST", kChatPath, Chat({{"stream", true}}).dump()));
  ASSERT_EQ(client.ReadHead().status, 200);
  // It has come to rest when the count no longer moves over many round trips through the same gateway.
  int64_t last = -1;
  for (int still = 0; still < 200;) {
    Get(port(), "/health");
    const int64_t now = written;
    still = now == last ? still + 1 : 0;
    last = now;
    ASSERT_LT(now, 100'000) << "a gigabyte for a client that reads nothing";
  }
  client.Reset();
  EXPECT_TRUE(over.Wait());
}

TEST_F(FailureTest, AWorkerThatDiesInMidStreamEndsItWithAnErrorEvent) {
  Event begun;
  worker_.SetScript(
      [&](grpc::ServerContext& context, const v1::GenerateRequest&, StubWorker::Writer& writer) {
        writer.Write(TextMessage("first", {1}));
        begun.Set();
        WaitForCancellation(context);
        return grpc::Status::CANCELLED;
      });
  Client client(port());
  client.Send(RequestText("POST", kChatPath, Chat({{"stream", true}}).dump()));
  ASSERT_EQ(client.ReadHead().status, 200);
  client.ReadEvent();
  EXPECT_EQ(json::parse(client.ReadEvent())["choices"][0]["delta"]["content"], "first");
  ASSERT_TRUE(begun.Wait());
  const int worker_port = worker_.port();
  worker_.Stop();
  json event = json::parse(client.ReadEvent());
  EXPECT_EQ(event["error"].size(), 4u) << event;
  EXPECT_EQ(event["error"]["type"], "server_error");
  EXPECT_EQ(client.ReadEvent(), "");  // the end, and no [DONE]

  EXPECT_TRUE(WaitUntilReady(port(), 503));
  ExpectError(Post(port(), kChatPath, Chat()), 503, "server_error", nullptr, "service_unavailable");
  EXPECT_EQ(Metric("quire_gateway_worker_ready{worker=\"127.0.0.1:" + std::to_string(worker_port) + "\"}"),
            0);

  // It comes back with another model: described anew.
  StubWorker again("other", worker_port);
  ASSERT_TRUE(WaitUntilReady(port()));
  EXPECT_EQ(Get(port(), "/v1/models").Json()["data"][0]["id"], "other");
  EXPECT_EQ(Post(port(), kChatPath, Chat({{"model", "other"}})).status, 200);
  ExpectError(Post(port(), kChatPath, Chat()), 404, "invalid_request_error", nullptr, "model_not_found");
}

class TwoWorkersTest : public GatewayTest {
 protected:
  GatewayOptions Options() override {
    GatewayOptions options;
    options.workers = {worker_.address(), second_.address()};
    return options;
  }
  bool WaitForBoth() {
    return Reaches("quire_gateway_worker_ready{worker=\"" + worker_.address() + "\"}", 1) &&
           Reaches("quire_gateway_worker_ready{worker=\"" + second_.address() + "\"}", 1);
  }
  StubWorker second_;
};

TEST_F(TwoWorkersTest, TakeTurns) {
  ASSERT_TRUE(WaitForBoth());
  for (int i = 0; i < 10; ++i) ASSERT_EQ(Post(port(), kChatPath, Chat()).status, 200);
  EXPECT_EQ(worker_.generations(), 5);
  EXPECT_EQ(second_.generations(), 5);
  EXPECT_EQ(Get(port(), "/v1/models").Json()["data"].size(), 1u);
}

TEST_F(TwoWorkersTest, TheOtherOneAnswersIfNothingWasSentYet) {
  ASSERT_TRUE(WaitForBoth());
  auto down = [](grpc::ServerContext&, const v1::GenerateRequest&, StubWorker::Writer&) {
    return grpc::Status(grpc::UNAVAILABLE, "shutting down");
  };
  worker_.SetScript(down);
  worker_.SetDescribeStatus(grpc::Status(grpc::UNAVAILABLE, "shutting down"));
  for (int i = 0; i < 10; ++i) ASSERT_EQ(Post(port(), kChatPath, Chat()).status, 200);
  EXPECT_LE(worker_.generations(), 1);  // then it is known to be down
  EXPECT_GE(second_.generations(), 10);
  second_.SetScript(down);
  second_.SetDescribeStatus(grpc::Status(grpc::UNAVAILABLE, "shutting down"));
  ExpectError(Post(port(), kChatPath, Chat()), 503, "server_error", nullptr, "service_unavailable");
}

TEST_F(TwoWorkersTest, NoSecondTryOnceSomethingWasSent) {
  ASSERT_TRUE(WaitForBoth());
  auto die_early = [](grpc::ServerContext&, const v1::GenerateRequest&, StubWorker::Writer& writer) {
    writer.Write(TextMessage("x", {1}));
    return grpc::Status(grpc::UNAVAILABLE, "shutting down");
  };
  worker_.SetScript(die_early);
  second_.SetScript(die_early);
  bool done = false;
  auto events = PostStream(port(), kChatPath, Chat({{"stream", true}}), &done);
  EXPECT_FALSE(done);
  ASSERT_FALSE(events.empty());
  EXPECT_TRUE(events.back().contains("error"));
  EXPECT_EQ(worker_.generations() + second_.generations(), 1);
}

TEST(LateWorker, NotReadyUntilItDescribesItself) {
  StubWorker worker;
  worker.SetDescribeStatus(grpc::Status(grpc::UNAVAILABLE, "loading"));
  GatewayOptions options;
  options.listen = "127.0.0.1:0";
  options.workers = {worker.address()};
  auto gateway = Gateway::Start(std::move(options));
  ASSERT_TRUE(gateway.ok()) << gateway.status();
  const int port = (*gateway)->port();
  ASSERT_TRUE(worker.WaitForDescribes(2));
  ExpectError(Get(port, "/health"), 503, "server_error", nullptr, "service_unavailable");
  ExpectError(
      Post(port, kChatPath, {{"model", "stub"}, {"messages", {{{"role", "user"}, {"content", "x"}}}}}), 503,
      "server_error", nullptr, "service_unavailable");
  EXPECT_EQ(Get(port, "/v1/models").Json()["data"], json::array());
  worker.SetDescribeStatus(grpc::Status::OK);
  EXPECT_TRUE(WaitUntilReady(port));
}

TEST(Hosting, AWorkerInTheSameProcess) {
  StubWorker worker;
  GatewayOptions options;
  options.listen = "127.0.0.1:0";
  options.channels = {worker.channel()};
  auto gateway = Gateway::Start(std::move(options));
  ASSERT_TRUE(gateway.ok()) << gateway.status();
  const int port = (*gateway)->port();
  ASSERT_TRUE(WaitUntilReady(port));
  EXPECT_TRUE((*gateway)->ready());
  const json body = {
      {"model", "stub"}, {"stream", true}, {"messages", {{{"role", "user"}, {"content", "x"}}}}};
  bool done = false;
  EXPECT_EQ(PostStream(port, kChatPath, body, &done).size(), 5u);
  EXPECT_TRUE(done);

  Event begun, cancelled;
  worker.SetScript([&](grpc::ServerContext& context, const v1::GenerateRequest&, StubWorker::Writer& writer) {
    writer.Write(TextMessage("x", {1}));
    begun.Set();
    if (WaitForCancellation(context)) cancelled.Set();
    return grpc::Status::CANCELLED;
  });
  Client client(port);
  client.Send(RequestText("POST", kChatPath, body.dump()));
  ASSERT_TRUE(begun.Wait());
  client.Close();
  EXPECT_TRUE(cancelled.Wait());
}

TEST(Hosting, BadOptionsAreNamed) {
  EXPECT_FALSE(Gateway::Start({}).ok());
  StubWorker worker;
  GatewayOptions options;
  options.workers = {worker.address()};
  options.listen = "127.0.0.1:" + std::to_string(worker.port());  // taken
  auto gateway = Gateway::Start(options);
  ASSERT_FALSE(gateway.ok());
  EXPECT_THAT(std::string(gateway.status().message()), testing::HasSubstr(options.listen));
  options.listen = "127.0.0.1:0";
  options.secret_file = "/nonexistent/secret";
  EXPECT_FALSE(Gateway::Start(options).ok());
}

TEST(Hosting, StartsAndStopsAtOnceEvenIfNoWorkerIsThere) {
  for (int i = 0; i < 5; ++i) {
    GatewayOptions options;
    options.listen = "127.0.0.1:0";
    options.workers = {"127.0.0.1:1", "192.0.2.1:9"};  // nobody; nowhere
    auto gateway = Gateway::Start(std::move(options));
    ASSERT_TRUE(gateway.ok()) << gateway.status();
    (*gateway)->Shutdown(std::chrono::seconds(0));
  }
}

TEST_F(FailureTest, ShutdownLetsStreamsFinish) {
  Event begun, go_on;
  worker_.SetScript([&](grpc::ServerContext&, const v1::GenerateRequest&, StubWorker::Writer& writer) {
    writer.Write(TextMessage("a", {1}));
    begun.Set();
    EXPECT_TRUE(go_on.Wait());
    writer.Write(FinishMessage(v1::STOP, 1, 1, 0));
    return grpc::Status::OK;
  });
  Client client(port()), idle(port());
  client.Send(RequestText("POST", kCompletionPath, Completion({{"stream", true}}).dump()));
  ASSERT_EQ(client.ReadHead().status, 200);
  ASSERT_TRUE(begun.Wait());
  std::thread shutdown([&] { gateway_->Shutdown(std::chrono::seconds(30)); });
  EXPECT_TRUE(idle.ReadEnd());
  go_on.Set();
  client.ReadEvent();
  client.ReadEvent();
  EXPECT_EQ(client.ReadEvent(), "[DONE]");
  shutdown.join();
}

TEST_F(FailureTest, ShutdownCutsWhatDoesNotEnd) {
  Event begun, cancelled;
  worker_.SetScript(
      [&](grpc::ServerContext& context, const v1::GenerateRequest&, StubWorker::Writer& writer) {
        writer.Write(TextMessage("a", {1}));
        begun.Set();
        if (WaitForCancellation(context)) cancelled.Set();
        return grpc::Status::CANCELLED;
      });
  Client client(port());
  client.Send(RequestText("POST", kChatPath, Chat({{"stream", true}}).dump()));
  ASSERT_EQ(client.ReadHead().status, 200);
  ASSERT_TRUE(begun.Wait());
  gateway_->Shutdown(std::chrono::milliseconds(0));
  EXPECT_TRUE(cancelled.Wait());
}

class BusyTest : public GatewayTest {
 protected:
  GatewayOptions Options() override {
    GatewayOptions options;
    options.max_active = 1;
    return options;
  }
};

TEST_F(BusyTest, OverTheLimitIs429) {
  Event begun, go_on;
  worker_.SetScript([&](grpc::ServerContext&, const v1::GenerateRequest&, StubWorker::Writer& writer) {
    begun.Set();
    EXPECT_TRUE(go_on.Wait());
    writer.Write(FinishMessage(v1::STOP, 1, 1, 0));
    return grpc::Status::OK;
  });
  Client first(port());
  first.Send(RequestText("POST", kChatPath, Chat().dump()));
  ASSERT_TRUE(begun.Wait());
  Reply second = Post(port(), kChatPath, Chat());
  ExpectError(second, 429, "requests", nullptr, "rate_limit_exceeded");
  EXPECT_EQ(second.headers["retry-after"], "1");
  go_on.Set();
  EXPECT_EQ(first.ReadReply().status, 200);
  EXPECT_TRUE(Reaches("quire_gateway_active_requests", 0));
  EXPECT_EQ(Post(port(), kChatPath, Chat()).status, 200);
}

TEST_F(FailureTest, BodyOver8MiBIs413InOpenAIsShape) {
  Reply reply = Client(port()).Request("POST", kChatPath, std::string((8 << 20) + 1, 'x'));
  ExpectError(reply, 413, "invalid_request_error", nullptr, nullptr);
  ExpectError(Client(port()).Request("GET", "/health", "", "A: " + std::string(1 << 20, 'a') + "\r\n"), 431,
              "invalid_request_error", nullptr, nullptr);
  // What HTTP lets through may still be more than a worker takes in one message.
  json large = Chat();
  large["messages"][0]["content"] = std::string(4 << 20, 'x');
  ExpectError(Post(port(), kChatPath, large), 400, "invalid_request_error", "messages",
              "context_length_exceeded");
  large["messages"][0]["content"] = std::string(4'000'000, 'x');
  EXPECT_EQ(Post(port(), kChatPath, large).status, 200);
}

TEST_F(FailureTest, ManyStreamsAtOnce) {
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) {
        bool done = false;
        auto events = PostStream(port(), kChatPath, Chat({{"stream", true}}), &done);
        good += done && events.size() == 5;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good, 160);
}

}  // namespace
}  // namespace quire::gateway::test

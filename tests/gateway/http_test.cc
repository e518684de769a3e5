// HTTP itself, through the server's own interface: limits, framing, keep-alive, pipelining, timeouts,
// shutdown.
#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <thread>

#include "gateway/async/wakeup.h"
#include "gateway/http/server.h"
#include "gateway/http/wire.h"
#include "tests/gateway/client.h"
#include "tests/gateway/stub_worker.h"

namespace quire::gateway::http {
namespace {

namespace asio = boost::asio;
using test::Client;
using test::Event;
using test::Reply;
using test::RequestText;

class HttpTest : public testing::Test {
 protected:
  void Start(Handler handler, Limits limits = {}) {
    ServerOptions options;
    options.limits = limits;
    options.refusal = [](int status, const std::string& message) {
      return Response{.status = status, .content_type = "text/plain", .body = message};
    };
    auto server = Server::Start(io_, std::move(options), std::move(handler));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    thread_ = std::thread([this] { io_.run(); });
    second_ = std::thread([this] { io_.run(); });
  }
  void StartEcho(Limits limits = {}) {
    Start(
        [](Request request, Exchange& exchange) -> asio::awaitable<void> {
          Response response{
              .content_type = "text/plain",
              .body = request.method + " " + request.path + "?" + request.query + " " + request.body};
          co_await exchange.Send(std::move(response));
        },
        limits);
  }
  ~HttpTest() override {
    if (server_) server_->Shutdown(std::chrono::milliseconds(0));
    work_.reset();
    if (thread_.joinable()) thread_.join();
    if (second_.joinable()) second_.join();
  }
  int port() const { return server_->port(); }

  asio::io_context io_;
  asio::executor_work_guard<asio::io_context::executor_type> work_ = asio::make_work_guard(io_);
  std::unique_ptr<Server> server_;
  std::thread thread_, second_;
};

TEST_F(HttpTest, KeepsTheConnection) {
  StartEcho();
  Client client(port());
  for (int i = 0; i < 100; ++i) {
    Reply reply = client.Request("POST", "/a?b=c", std::to_string(i));
    ASSERT_EQ(reply.status, 200);
    ASSERT_EQ(reply.body, "POST /a?b=c " + std::to_string(i));
    EXPECT_EQ(reply.headers["connection"], "keep-alive");
    EXPECT_TRUE(reply.headers.count("date"));
  }
  EXPECT_EQ(client.Request("GET", "/", "", "Connection: close\r\n").headers["connection"], "close");
  EXPECT_TRUE(client.ReadEnd());
}

TEST_F(HttpTest, AnswersPipelinedRequestsInOrder) {
  StartEcho();
  Client client(port());
  std::string all;
  for (int i = 0; i < 200; ++i) all += RequestText("POST", "/", std::to_string(i));
  ASSERT_TRUE(client.Send(all));
  for (int i = 0; i < 200; ++i) ASSERT_EQ(client.ReadReply().body, "POST /? " + std::to_string(i));
}

TEST_F(HttpTest, PipelinedRequestsWhileAnAnswerIsWatched) {
  Start([](Request request, Exchange& exchange) -> asio::awaitable<void> {
    exchange.OnDisconnect([] {});
    exchange.StartStream(200, "text/plain", {});
    for (int i = 0; i < 5; ++i) {
      const bool written = co_await exchange.Write("x");
      if (!written) co_return;
    }
    co_await exchange.FinishStream(request.body);
  });
  Client client(port());
  for (int round = 0; round < 20; ++round) {
    std::string all;
    for (int i = 0; i < 10; ++i) all += RequestText("POST", "/", std::to_string(i));
    ASSERT_TRUE(client.Send(all));
    for (int i = 0; i < 10; ++i) ASSERT_EQ(client.ReadReply().body, "xxxxx" + std::to_string(i)) << round;
  }
}

TEST_F(HttpTest, TakesRequestsByteByByte) {
  StartEcho();
  Client client(port());
  for (char c : RequestText("POST", "/slow", "body")) ASSERT_TRUE(client.Send(std::string_view(&c, 1)));
  EXPECT_EQ(client.ReadReply().body, "POST /slow? body");
}

TEST_F(HttpTest, TakesChunkedUploads) {
  StartEcho();
  Client client(port());
  client.Send("POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
  client.Send("2;ext=1\r\nde\r\n0\r\nTrailer: t\r\n\r\n");
  EXPECT_EQ(client.ReadReply().body, "POST /c? abcde");
  EXPECT_EQ(client.Request("GET", "/next").body, "GET /next? ");
}

TEST_F(HttpTest, ContinuesWhenExpected) {
  StartEcho();
  Client client(port());
  client.Send("POST /e HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
  EXPECT_EQ(client.ReadHead().status, 100);
  client.Send("abc");
  EXPECT_EQ(client.ReadReply().body, "POST /e? abc");
}

TEST_F(HttpTest, BodyOverTheLimitIs413) {
  Limits limits;
  limits.body_bytes = 1000;
  StartEcho(limits);
  EXPECT_EQ(Client(port()).Request("POST", "/", std::string(1000, 'x')).status, 200);
  EXPECT_EQ(Client(port()).Request("POST", "/", std::string(1001, 'x')).status, 413);
  Client chunked(port());
  chunked.Send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" +
               std::string(1001, 'x') + "\r\n0\r\n\r\n");
  EXPECT_EQ(chunked.ReadReply().status, 413);
  // A client that sends all of a large body first still gets to read why it was refused.
  Client large(port());
  large.Send(RequestText("POST", "/", std::string(20 << 20, 'x')));
  EXPECT_EQ(large.ReadReply().status, 413);
}

TEST_F(HttpTest, HeaderOverTheLimitIs431) {
  StartEcho();
  EXPECT_EQ(Client(port()).Request("GET", "/", "", "A: " + std::string(20'000, 'a') + "\r\n").status, 200);
  EXPECT_EQ(Client(port()).Request("GET", "/", "", "A: " + std::string(1 << 20, 'a') + "\r\n").status, 431);
  std::string many;
  for (int i = 0; i < 50'000; ++i) many += "A: b\r\n";
  EXPECT_EQ(Client(port()).Request("GET", "/", "", many).status, 431);
  EXPECT_EQ(Client(port()).Request("GET", "/" + std::string(1 << 20, 'p')).status, 431);
}

TEST_F(HttpTest, MalformedRequestsAreRefused) {
  StartEcho();
  const std::pair<const char*, int> cases[] = {
      {"nonsense\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n\r\n", 400},  // no Host
      {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
      {"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 400},
      {"GET nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", 415},
      {"POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 1\r\n\r\nx", 417},
      {"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400},
      {"GET / HTTP/1.1\nHost: a\n\n", 400},
  };
  for (const auto& [text, status] : cases) {
    Client client(port());
    client.Send(text);
    Reply reply = client.ReadReply();
    EXPECT_EQ(reply.status, status) << text << "\n" << reply.body;
    EXPECT_EQ(reply.headers["connection"], "close") << text;
    client.ShutdownSend();
    EXPECT_TRUE(client.ReadEnd()) << text;
  }
  EXPECT_EQ(Client(port()).Request("GET", "/").status, 200);
}

TEST_F(HttpTest, OldClientsGetStreamsUntilTheEnd) {
  Start([](Request, Exchange& exchange) -> asio::awaitable<void> {
    exchange.StartStream(200, "text/plain", {});
    co_await exchange.Write("abc");
    co_await exchange.FinishStream("def");
  });
  Client client(port());
  client.Send("GET / HTTP/1.0\r\n\r\n");
  Reply reply = client.ReadReply();
  EXPECT_EQ(reply.body, "abcdef");
  EXPECT_EQ(reply.headers["connection"], "close");
  EXPECT_EQ(reply.headers.count("transfer-encoding"), 0u);
}

TEST_F(HttpTest, RequestsCutAtEveryByteLeaveNothingBehind) {
  StartEcho();
  const std::string whole = RequestText("POST", "/cut", "0123456789");
  for (size_t cut = 0; cut < whole.size(); ++cut) {
    Client client(port());
    client.Send(whole.substr(0, cut));
    client.ShutdownSend();
    EXPECT_TRUE(client.ReadEnd()) << cut;
  }
  EXPECT_EQ(Client(port()).Request("GET", "/").status, 200);
}

TEST_F(HttpTest, SlowHeadersAndBodiesAre408AndIdleConnectionsClose) {
  Limits limits;
  limits.header_time = limits.body_time = limits.idle = std::chrono::milliseconds(100);
  StartEcho(limits);
  Client header(port()), body(port()), idle(port());
  header.Send("GET / HT");
  body.Send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
  EXPECT_EQ(header.ReadReply().status, 408);
  EXPECT_EQ(body.ReadReply().status, 408);
  EXPECT_TRUE(idle.ReadEnd());
}

TEST_F(HttpTest, AReaderThatStallsIsCut) {
  Limits limits;
  limits.write_time = std::chrono::milliseconds(100);
  Event over;
  std::atomic<bool> gone = false;
  Start(
      [&](Request, Exchange& exchange) -> asio::awaitable<void> {
        exchange.OnDisconnect([&] { gone = true; });
        exchange.StartStream(200, "text/plain", {});
        const std::string block(1 << 20, 'x');
        int blocks = 0;
        bool more = true;
        while (more && ++blocks < 1000) more = co_await exchange.Write(block);
        EXPECT_LT(blocks, 1000);
        over.Set();
      },
      limits);
  Client client(port());
  client.ShrinkReceiveBuffer(4096);
  client.Send(RequestText("GET", "/"));
  EXPECT_TRUE(over.Wait());
}

class LeavingTest : public HttpTest, public testing::WithParamInterface<void (Client::*)()> {};

TEST_P(LeavingTest, IsNoticedWhileTheAnswerIsMade) {
  Event begun, gone;
  Wakeup wakeup;
  Start([&](Request, Exchange& exchange) -> asio::awaitable<void> {
    exchange.OnDisconnect([&] {
      gone.Set();
      wakeup.Notify();
    });
    begun.Set();
    co_await wakeup.Wait();
    exchange.StartStream(200, "text/plain", {});
    const bool written = co_await exchange.Write("too late");
    EXPECT_FALSE(written);
  });
  Client client(port());
  client.Send(RequestText("GET", "/"));
  ASSERT_TRUE(begun.Wait());
  (client.*GetParam())();
  EXPECT_TRUE(gone.Wait());
  server_->Shutdown(std::chrono::seconds(30));
}
INSTANTIATE_TEST_SUITE_P(Ways, LeavingTest,
                         testing::Values(&Client::Close, &Client::Reset, &Client::ShutdownSend));

TEST_F(HttpTest, HandlersThatThrowOrSayNothingAre500) {
  Start([](Request request, Exchange&) -> asio::awaitable<void> {
    if (request.path == "/throw") throw std::runtime_error("secret detail");
    co_return;
  });
  Client client(port());
  Reply reply = client.Request("GET", "/throw");
  EXPECT_EQ(reply.status, 500);
  EXPECT_EQ(reply.body.find("secret"), std::string::npos);
  EXPECT_EQ(Client(port()).Request("GET", "/silent").status, 500);
}

TEST_F(HttpTest, AnUnfinishedStreamIsCutSoThatTheClientSees) {
  Start([](Request, Exchange& exchange) -> asio::awaitable<void> {
    exchange.StartStream(200, "text/plain", {});
    co_await exchange.Write("half");
  });
  Client client(port());
  Reply reply = client.Request("GET", "/");
  EXPECT_EQ(reply.body, "half");
  EXPECT_FALSE(reply.complete);
}

TEST_F(HttpTest, ShutdownLetsRunningRequestsFinish) {
  Event begun;
  Wakeup go_on;
  Start([&](Request, Exchange& exchange) -> asio::awaitable<void> {
    begun.Set();
    co_await go_on.Wait();
    Response response{.body = "done"};
    co_await exchange.Send(std::move(response));
  });
  Client busy(port()), idle(port());
  busy.Send(RequestText("GET", "/"));
  ASSERT_TRUE(begun.Wait());
  std::thread shutdown([&] { server_->Shutdown(std::chrono::seconds(30)); });
  EXPECT_TRUE(idle.ReadEnd());  // closed while the busy one goes on
  go_on.Notify();
  Reply reply = busy.ReadReply();
  EXPECT_EQ(reply.body, "done");
  EXPECT_EQ(reply.headers["connection"], "close");
  shutdown.join();
  EXPECT_EQ(server_->connections(), 0u);
  EXPECT_EQ(Client(port()).Request("GET", "/").status, 0);
}

TEST_F(HttpTest, ManyConnectsAndResetsLeaveNoConnection) {
  StartEcho();
  for (int i = 0; i < 2000; ++i) {
    Client client(port());
    if (i % 3 == 0) client.Send("GET / HT");
    if (i % 3 == 1) client.Send(RequestText("GET", "/"));
    client.Reset();
  }
  EXPECT_EQ(Client(port()).Request("GET", "/").status, 200);
  server_->Shutdown(std::chrono::seconds(30));
  EXPECT_EQ(server_->connections(), 0u);
}

TEST(Wire, TargetsAndEscapes) {
  std::string path, query;
  EXPECT_TRUE(SplitTarget("/a/b?c=d?e", &path, &query));
  EXPECT_EQ(path + "|" + query, "/a/b|c=d?e");
  EXPECT_TRUE(SplitTarget("http://host:1/x?y", &path, &query));
  EXPECT_EQ(path + "|" + query, "/x|y");
  for (const char* bad : {"", "*", "x", "http://host", "http://host?x"})
    EXPECT_FALSE(SplitTarget(bad, &path, &query)) << bad;
  EXPECT_EQ(PercentDecode("%41%2f%zz%4%"), "A/%zz%4%");
}

TEST(Listening, BadAddressesAreNamed) {
  asio::io_context io;
  for (const char* address :
       {"nohost", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1:8x", "256.0.0.1:80"}) {
    ServerOptions options;
    options.listen = address;
    auto server = Server::Start(io, options, nullptr);
    ASSERT_FALSE(server.ok()) << address;
    EXPECT_NE(std::string(server.status().message()).find(address), std::string::npos) << server.status();
  }
}

}  // namespace
}  // namespace quire::gateway::http

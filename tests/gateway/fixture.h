// A gateway in front of one stub worker, ready to be asked.
#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "gateway/server/gateway.h"
#include "tests/gateway/client.h"
#include "tests/gateway/stub_worker.h"

namespace quire::gateway::test {

using nlohmann::json;

// Asks /health until it says 200. Each answer is an event of its own: the gateway probes its workers all the
// time.
inline bool WaitUntilReady(int port, int status = 200) {
  Client client(port);
  for (int i = 0; i < 1'000'000; ++i) {
    Reply reply = client.Request("GET", "/health");
    if (reply.status == status) return true;
    if (reply.status == 0) return false;
  }
  return false;
}

class GatewayTest : public testing::Test {
 protected:
  virtual GatewayOptions Options() { return {}; }

  void SetUp() override {
    GatewayOptions options = Options();
    options.listen = "127.0.0.1:0";
    if (options.workers.empty()) options.workers = {worker_.address()};
    auto gateway = Gateway::Start(std::move(options));
    ASSERT_TRUE(gateway.ok()) << gateway.status();
    gateway_ = *std::move(gateway);
    ASSERT_TRUE(WaitUntilReady(port()));
  }

  int port() const { return gateway_->port(); }
  // The value of a metric's line, as in `quire_gateway_requests_total{route="other",status="404"}`; −1 if it
  // is not there.
  double Metric(const std::string& line) const {
    const std::string text = "\n" + Get(port(), "/metrics").body;
    size_t at = text.find("\n" + line + " ");
    return at == std::string::npos ? -1 : std::stod(text.substr(at + line.size() + 2));
  }

  // Whether the metric comes to a value: an answer's last byte may be there before it is counted.
  bool Reaches(const std::string& line, double value) const {
    for (int i = 0; i < 10'000; ++i) {
      if (Metric(line) == value) return true;
    }
    return false;
  }

  static json Chat(json more = json::object()) {
    json body = {{"model", "stub"}, {"messages", {{{"role", "user"}, {"content", "Hi"}}}}};
    body.update(more);
    return body;
  }
  static json Completion(json more = json::object()) {
    json body = {{"model", "stub"}, {"prompt", "Once"}};
    body.update(more);
    return body;
  }

  StubWorker worker_;
  std::unique_ptr<Gateway> gateway_;
};

constexpr char kChatPath[] = "/v1/chat/completions";
constexpr char kCompletionPath[] = "/v1/completions";

inline void ExpectError(const Reply& reply, int status, const json& type, const json& param,
                        const json& code) {
  EXPECT_EQ(reply.status, status) << reply.body;
  json body = reply.Json();
  ASSERT_TRUE(body.is_object() && body.size() == 1 && body.contains("error")) << reply.body;
  const json& error = body["error"];
  EXPECT_EQ(error.size(), 4u) << reply.body;
  EXPECT_TRUE(error["message"].is_string() && !error["message"].get<std::string>().empty());
  EXPECT_EQ(error["type"], type) << reply.body;
  EXPECT_EQ(error["param"], param) << reply.body;
  EXPECT_EQ(error["code"], code) << reply.body;
  EXPECT_EQ(reply.headers.at("content-type"), "application/json");
}

}  // namespace quire::gateway::test

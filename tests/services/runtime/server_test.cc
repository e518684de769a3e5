#include "services/runtime/server.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "grpc_health.h"
#include "services/runtime/status.h"

namespace quire::runtime {
namespace {

TEST(Status, EveryCodeSurvivesBothWays) {
  for (int code = 0; code <= 16; ++code) {
    absl::Status status(static_cast<absl::StatusCode>(code), code == 0 ? "" : "why");
    EXPECT_EQ(FromGrpc(ToGrpc(status)), status);
  }
}

TEST(Server, HealthFollowsSetServing) {
  auto server = Server::Start({}, {});
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_NE((*server)->port(), 0);
  auto channel = NewChannel((*server)->address());
  ASSERT_TRUE(channel.ok());
  EXPECT_EQ(CheckHealth(**channel), Health::kNotServing);
  (*server)->SetServing(true);
  EXPECT_EQ(CheckHealth(**channel), Health::kServing);
  EXPECT_EQ(CheckHealth(*(*server)->InProcessChannel()), Health::kServing);
}

TEST(Server, APortInUseIsAClearError) {
  auto first = Server::Start({}, {});
  ASSERT_TRUE(first.ok());
  ServerOptions options;
  options.listen = (*first)->address();
  auto second = Server::Start(options, {});
  ASSERT_FALSE(second.ok());
  EXPECT_NE(std::string(second.status().message()).find(options.listen), std::string::npos);
}

TEST(Server, HalfConfiguredTlsIsRefused) {
  ServerOptions options;
  options.tls.certificate = "/nowhere/cert.pem";
  EXPECT_EQ(Server::Start(options, {}).status().code(), absl::StatusCode::kInvalidArgument);
  options.tls.key = "/nowhere/key.pem";
  EXPECT_EQ(Server::Start(options, {}).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace quire::runtime

#include "services/runtime/metrics.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

namespace quire::runtime {
namespace {

std::string HttpGet(int port, const std::string& path) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  std::string request = "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  EXPECT_EQ(write(fd, request.data(), request.size()), static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t n; (n = read(fd, buffer, sizeof(buffer))) > 0;) answer.append(buffer, n);
  close(fd);
  return answer;
}

TEST(MetricsListener, ServesWhatIsRegistered) {
  auto registry = NewRegistry();
  AddCounter(*registry, "quire_test_events_total", "Events.", {{"kind", "a"}}).Increment(3);
  AddGauge(*registry, "quire_test_level", "Level.");
  auto listener = MetricsListener::Start("127.0.0.1:0", registry);
  ASSERT_TRUE(listener.ok()) << listener.status();
  ASSERT_NE((*listener)->port(), 0);
  std::string page = HttpGet((*listener)->port(), "/metrics");
  EXPECT_NE(page.find("quire_test_events_total{kind=\"a\"} 3"), std::string::npos) << page;
  EXPECT_NE(page.find("quire_test_level 0"), std::string::npos) << page;
  EXPECT_NE(Exposition(*registry).find("quire_test_level 0"), std::string::npos);
}

TEST(MetricsListener, AnAddressThatIsNotOursIsAClearError) {
  auto listener = MetricsListener::Start("203.0.113.1:1", NewRegistry());
  ASSERT_FALSE(listener.ok());
  EXPECT_NE(std::string(listener.status().message()).find("203.0.113.1:1"), std::string::npos);
}

}  // namespace
}  // namespace quire::runtime

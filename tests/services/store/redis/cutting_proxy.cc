#include "tests/services/store/redis/cutting_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

namespace quire::store::redis {
namespace {

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

}  // namespace

CuttingProxy::CuttingProxy(int server_port) : server_port_(server_port) {
  Never();
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof address;
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0 && listen(listener_, 64) == 0 &&
      getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0)
    port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { Run(); });
}

CuttingProxy::~CuttingProxy() {
  stop_ = true;
  thread_.join();
  CloseAll();
  close(listener_);
}

std::string CuttingProxy::address() const { return "127.0.0.1:" + std::to_string(port_); }

void CuttingProxy::CutAfter(int64_t to_server, int64_t from_server) {
  left_[0] = to_server;
  left_[1] = from_server;
}

void CuttingProxy::Run() {
  while (!stop_) {
    std::vector<pollfd> polled = {{listener_, POLLIN, 0}};
    for (const Pair& pair : pairs_) {
      polled.push_back({pair.client, POLLIN, 0});
      polled.push_back({pair.server, POLLIN, 0});
    }
    poll(polled.data(), polled.size(), 20);
    std::vector<Pair> kept;
    for (size_t i = 0; i < pairs_.size(); ++i) {
      const Pair& pair = pairs_[i];
      bool open = (polled[1 + 2 * i].revents == 0 || Pass(pair.client, pair.server, 0)) &&
                  (polled[2 + 2 * i].revents == 0 || Pass(pair.server, pair.client, 1));
      if (open) {
        kept.push_back(pair);
      } else {
        close(pair.client);
        close(pair.server);
      }
    }
    pairs_ = std::move(kept);
    if (left_[0] <= 0 || left_[1] <= 0) {
      CloseAll();
      Never();
      ++cuts_;
    }
    if (polled[0].revents != 0) Accept();
  }
}

void CuttingProxy::Accept() {
  Pair pair;
  pair.client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  pair.server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(server_port_);
  if (connect(pair.server, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    close(pair.client);
    close(pair.server);
    return;
  }
  int on = 1;
  for (int fd : {pair.client, pair.server}) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  pairs_.push_back(pair);
}

bool CuttingProxy::Pass(int from, int to, size_t direction) {
  char buffer[1 << 16];
  auto most = static_cast<size_t>(std::clamp<int64_t>(left_[direction], 0, sizeof buffer));
  if (most == 0) return true;  // cut in a moment
  ssize_t bytes = read(from, buffer, most);
  if (bytes <= 0) return false;
  for (ssize_t sent = 0; sent < bytes;) {
    ssize_t n = send(to, buffer + sent, static_cast<size_t>(bytes - sent), MSG_NOSIGNAL);
    if (n <= 0) return false;
    sent += n;
  }
  left_[direction] -= bytes;
  passed_[direction] += bytes;
  return true;
}

void CuttingProxy::CloseAll() {
  for (const Pair& pair : pairs_) {
    close(pair.client);
    close(pair.server);
  }
  pairs_.clear();
}

}  // namespace quire::store::redis

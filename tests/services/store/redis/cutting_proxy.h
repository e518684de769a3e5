// Passes bytes between clients and one server on a port of its own, until it is told to cut.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

namespace quire::store::redis {

class CuttingProxy {
 public:
  explicit CuttingProxy(int server_port);
  ~CuttingProxy();
  std::string address() const;

  // After so many more bytes to the server and from it, whichever comes first, every connection is closed;
  // new ones pass all. Bytes up to the cut do arrive.
  void CutAfter(int64_t to_server, int64_t from_server);
  void Never() { CutAfter(INT64_MAX, INT64_MAX); }
  uint64_t cuts() const { return cuts_; }
  int64_t passed(bool to_server) const { return passed_[to_server ? 0 : 1]; }

 private:
  struct Pair {
    int client = -1, server = -1;
  };
  void Run();
  void Accept();
  bool Pass(int from, int to, size_t direction);  // false: one of them is closed
  void CloseAll();

  const int server_port_;
  int listener_ = -1, port_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> left_[2];
  std::atomic<int64_t> passed_[2] = {0, 0};
  std::atomic<uint64_t> cuts_{0};
  std::vector<Pair> pairs_;
  std::thread thread_;
};

}  // namespace quire::store::redis

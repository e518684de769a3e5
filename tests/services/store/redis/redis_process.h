// A real redis-server process: on a free port and a Unix socket, in a folder of the caller's, killed with it.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace quire::store::redis {

int FreePort();  // of 127.0.0.1; free when asked

struct ProcessOptions {
  std::vector<std::string> arguments;  // besides port, folder, no persistence
  bool tls = false;                    // on the port; `arguments` name the files
  bool cluster = false;
};

class RedisProcess {
 public:
  // Returns once it takes connections. UNAVAILABLE with its last words if it does not, NOT_FOUND if no
  // redis-server is installed ($QUIRE_REDIS_SERVER may name one).
  static absl::StatusOr<std::unique_ptr<RedisProcess>> Start(std::string folder, ProcessOptions options);
  ~RedisProcess();  // SIGKILL

  void Kill();             // SIGKILL; its port stays the same
  absl::Status Restart();  // empty, unless a cluster's node, which keeps its place in the cluster
  void Stop();             // SIGSTOP: half-open
  void Continue();

  std::string address() const;  // host:port, or rediss://…
  std::string unix_address() const { return "unix:" + folder_ + "/redis.sock"; }
  int port() const { return port_; }
  std::string log();

 private:
  RedisProcess(std::string folder, ProcessOptions options)
      : folder_(std::move(folder)), options_(std::move(options)) {}
  std::vector<std::string> Arguments() const;
  bool Launch(const std::string& binary);
  void ReadLog(int fd);

  const std::string folder_;
  const ProcessOptions options_;
  int port_ = 0;
  pid_t pid_ = -1;
  std::thread reader_;
  std::mutex mu_;  // guards all below
  std::condition_variable changed_;
  std::string log_;
  bool ready_ = false, ended_ = false;
};

}  // namespace quire::store::redis

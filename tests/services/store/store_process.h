// quire-store as a process of its own, killed with its owner. Without GoogleTest, for benchmarks too.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace quire::store {

// For one thread, the one that started it (the process dies with that thread), but for Kill.
class StoreProcess {
 public:
  // Runs `binary` with these arguments and returns once it is ready. UNAVAILABLE if it ends before.
  static absl::StatusOr<std::unique_ptr<StoreProcess>> Start(const std::string& binary,
                                                             std::vector<std::string> arguments);
  ~StoreProcess();  // SIGKILL

  void Kill() const;     // SIGKILL, without waiting; any thread
  int Stop(int signal);  // sends it and waits for the end: as AwaitEnd
  int AwaitEnd();
  // Waits at most so long. False: it lives.
  bool EndsWithin(std::chrono::milliseconds limit);  // the exit code, or the negative number of the signal it
                                                     // died of; again: the same
  const std::string& address() const { return address_; }
  uint64_t rss_bytes() const;  // memory it uses now, without what it shares with files

 private:
  StoreProcess() = default;
  bool ReadAddress();

  pid_t pid_ = -1;
  bool ended_ = false;
  int end_ = 0;
  std::unique_ptr<FILE, int (*)(FILE*)> out_{nullptr, &std::fclose};
  std::string address_;
};

}  // namespace quire::store

// Threads that move objects between tiers, and the bounded queues they take their work from.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace quire::store {

struct MoverOptions {
  int threads = 2;
  size_t queued_writes = 256;   // objects waiting to be written to slower tiers
  size_t queued_fetches = 256;  // objects waiting to be brought to faster ones
};

// Thread-safe. Fetches go before writes: somebody may be waiting for them.
class Mover {
 public:
  using Work = std::function<void()>;

  explicit Mover(const MoverOptions& options);
  ~Mover();  // finishes what runs, drops what waits

  enum Kind : uint8_t { kWrite = 0, kFetch = 1 };
  // False if that queue is full.
  bool Submit(Kind kind, Work work);
  // Waits for a place in the queue until the deadline.
  bool SubmitBy(Kind kind, Work work, std::chrono::steady_clock::time_point deadline);
  // Waits until a piece of work has ended after this call (true) or none is left (false), at most so long.
  bool AwaitProgress(std::chrono::steady_clock::time_point deadline);
  // Waits until nothing runs or waits; false at the deadline.
  bool AwaitIdle(std::chrono::steady_clock::time_point deadline);
  size_t waiting(Kind kind) const;

 private:
  void Run();

  const MoverOptions options_;
  mutable std::mutex mu_;  // guards all below
  std::condition_variable work_, ended_;
  std::deque<Work> queues_[2];
  size_t running_ = 0;
  uint64_t ended_count_ = 0;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace quire::store

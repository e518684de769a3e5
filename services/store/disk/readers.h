// Threads that read for whoever has a batch to read.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace quire::store {

// Thread-safe; batches of several callers share the threads.
class Readers {
 public:
  explicit Readers(int threads);  // beside the callers' own
  ~Readers();
  Readers(const Readers&) = delete;
  Readers& operator=(const Readers&) = delete;

  // Calls body(0) … body(n − 1), each once, on the caller's thread and these; returns when all have returned.
  void Run(size_t n, absl::FunctionRef<void(size_t)> body);

 private:
  struct Batch {
    absl::FunctionRef<void(size_t)> body;
    size_t count = 0;
    size_t next = 0;     // first not begun
    size_t running = 0;  // begun, not returned
    std::condition_variable done;
  };
  void Serve();
  // REQUIRE: `lock` holds mu_ and the batch has calls not begun. Makes one, without the lock.
  void RunOne(Batch& batch, std::unique_lock<std::mutex>& lock);

  std::mutex mu_;  // guards all below and what batches hold
  std::condition_variable more_;
  std::deque<Batch*> batches_;  // with calls not begun
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace quire::store

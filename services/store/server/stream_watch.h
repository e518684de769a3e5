// Ends streams whose peer does nothing: a put session that sends no bytes, a reader that takes none.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"

namespace quire::store {

// One thread for all streams of a server; it sleeps while there are none. Thread-safe.
class StreamWatch {
 public:
  explicit StreamWatch(std::chrono::milliseconds idle_limit);
  ~StreamWatch();  // REQUIRES: no stream is watched

  // Ends all that are watched now.
  void CancelAll();

  // A call being watched, from construction on: after idle_limit without Progress it is cancelled, so that
  // its blocked Read or Write returns false.
  class Stream {
   public:
    Stream(StreamWatch& watch, grpc::ServerContext& context);
    ~Stream();
    void Progress();
    bool cancelled() const { return context_.IsCancelled(); }
    // Why the stream broke, if it was this watch that ended it or its client that went.
    absl::Status Broken() const;

   private:
    friend class StreamWatch;
    StreamWatch& watch_;
    grpc::ServerContext& context_;
    std::atomic<int64_t> last_ms_;
    std::atomic<bool> expired_{false};
  };

 private:
  void Run();

  const std::chrono::milliseconds idle_limit_;
  std::mutex mu_;                    // guards all below
  std::condition_variable changed_;  // a first stream came, or the end
  absl::flat_hash_set<Stream*> streams_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace quire::store

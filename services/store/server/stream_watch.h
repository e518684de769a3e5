// Ends streams whose peer does nothing: a put session that sends no bytes, a reader that takes none.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace quire::store {

// One thread for all streams of a server; it sleeps while there are none. Thread-safe.
class StreamWatch {
 public:
  explicit StreamWatch(std::chrono::milliseconds idle_limit);
  ~StreamWatch();  // REQUIRES: no stream is watched

  // A call being watched, from construction on: after idle_limit without Progress it is cancelled, so that
  // its blocked Read or Write returns false.
  class Stream {
   public:
    Stream(StreamWatch& watch, grpc::ServerContext& context);
    ~Stream();
    void Progress();
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
  absl::Mutex mu_;
  absl::flat_hash_set<Stream*> streams_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace quire::store

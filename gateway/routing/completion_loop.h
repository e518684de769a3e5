// The one thread that waits for gRPC (1.51 has no callback API worth using: it sleeps when idle).
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

namespace grpc {
class CompletionQueue;
}

namespace quire::gateway {

// What a completion-queue tag points to. Done runs on the loop's thread and must not block.
class CompletionTag {
 public:
  virtual ~CompletionTag() = default;
  virtual void Done(bool ok) = 0;
};

class CompletionLoop {
 public:
  CompletionLoop();
  // Waits for all calls to end; whoever made them cancels them first.
  ~CompletionLoop();

  grpc::CompletionQueue& queue() { return *queue_; }
  // A call may start new operations between its Begin and its End, and only then.
  void Begin();
  void End();

 private:
  void Run();

  std::unique_ptr<grpc::CompletionQueue> queue_;
  std::mutex mutex_;
  std::condition_variable idle_;
  int calls_ = 0;
  std::thread thread_;
};

}  // namespace quire::gateway

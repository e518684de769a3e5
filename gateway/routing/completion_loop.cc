#include "gateway/routing/completion_loop.h"

#include <grpcpp/completion_queue.h>
#include <pthread.h>

namespace quire::gateway {

CompletionLoop::CompletionLoop()
    : queue_(std::make_unique<grpc::CompletionQueue>()), thread_([this] { Run(); }) {
  pthread_setname_np(thread_.native_handle(), "gateway-grpc");
}

CompletionLoop::~CompletionLoop() {
  {
    std::unique_lock lock(mutex_);
    idle_.wait(lock, [this] { return calls_ == 0; });
  }
  queue_->Shutdown();
  thread_.join();
}

void CompletionLoop::Begin() {
  std::lock_guard lock(mutex_);
  ++calls_;
}

void CompletionLoop::End() {
  std::lock_guard lock(mutex_);
  if (--calls_ == 0) idle_.notify_all();
}

void CompletionLoop::Run() {
  void* tag = nullptr;
  bool ok = false;
  while (queue_->Next(&tag, &ok)) static_cast<CompletionTag*>(tag)->Done(ok);
}

}  // namespace quire::gateway

#include "services/store/disk/readers.h"

#include <algorithm>

namespace quire::store {

Readers::Readers(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Serve(); });
}

Readers::~Readers() {
  {
    std::lock_guard lock(mu_);
    stopping_ = true;
  }
  more_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Readers::Run(size_t n, absl::FunctionRef<void(size_t)> body) {
  if (n == 1 || threads_.empty()) {
    for (size_t i = 0; i < n; ++i) body(i);
    return;
  }
  if (n == 0) return;
  Batch batch{body, n, 0, 0, {}};
  std::unique_lock lock(mu_);
  batches_.push_back(&batch);
  more_.notify_all();
  while (batch.next < batch.count) RunOne(batch, lock);
  batch.done.wait(lock, [&] { return batch.running == 0; });
}

void Readers::RunOne(Batch& batch, std::unique_lock<std::mutex>& lock) {
  size_t i = batch.next++;
  ++batch.running;
  if (batch.next == batch.count) batches_.erase(std::find(batches_.begin(), batches_.end(), &batch));
  lock.unlock();
  batch.body(i);
  lock.lock();
  if (--batch.running == 0 && batch.next == batch.count) batch.done.notify_one();
}

void Readers::Serve() {
  std::unique_lock lock(mu_);
  while (true) {
    more_.wait(lock, [&] { return stopping_ || !batches_.empty(); });
    if (stopping_) return;
    // The batch that came first is finished first, but every thread of another caller works on its own.
    RunOne(*batches_.front(), lock);
  }
}

}  // namespace quire::store

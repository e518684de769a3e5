#include "services/store/engine/mover.h"

#include <utility>

namespace quire::store {

Mover::Mover(const MoverOptions& options) : options_(options) {
  for (int i = 0; i < options_.threads; ++i) threads_.emplace_back([this] { Run(); });
}

Mover::~Mover() {
  {
    std::lock_guard lock(mu_);
    stop_ = true;
    for (auto& queue : queues_) queue.clear();
  }
  work_.notify_all();
  ended_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

bool Mover::Submit(Kind kind, Work work) {
  return SubmitBy(kind, std::move(work), std::chrono::steady_clock::time_point::min());
}

bool Mover::SubmitBy(Kind kind, Work work, std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mu_);
  size_t limit = kind == kWrite ? options_.queued_writes : options_.queued_fetches;
  auto has_place = [&] { return stop_ || queues_[kind].size() < limit; };
  while (!has_place()) {
    if (deadline == std::chrono::steady_clock::time_point::min() ||
        ended_.wait_until(lock, deadline) == std::cv_status::timeout) {
      if (!has_place()) return false;
    }
  }
  if (stop_) return false;
  queues_[kind].push_back(std::move(work));
  work_.notify_one();
  return true;
}

bool Mover::AwaitProgress(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mu_);
  uint64_t seen = ended_count_;
  auto idle = [&] { return running_ == 0 && queues_[0].empty() && queues_[1].empty(); };
  ended_.wait_until(lock, deadline, [&] { return stop_ || ended_count_ != seen || idle(); });
  return ended_count_ != seen;
}

bool Mover::AwaitIdle(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mu_);
  return ended_.wait_until(
      lock, deadline, [&] { return stop_ || (running_ == 0 && queues_[0].empty() && queues_[1].empty()); });
}

size_t Mover::waiting(Kind kind) const {
  std::lock_guard lock(mu_);
  return queues_[kind].size();
}

void Mover::Run() {
  std::unique_lock lock(mu_);
  while (true) {
    work_.wait(lock, [&] { return stop_ || !queues_[kWrite].empty() || !queues_[kFetch].empty(); });
    if (stop_) return;
    std::deque<Work>& queue = queues_[queues_[kFetch].empty() ? kWrite : kFetch];
    Work work = std::move(queue.front());
    queue.pop_front();
    ++running_;
    lock.unlock();
    work();
    work = nullptr;  // lets go of what it held before anyone hears that it ended
    lock.lock();
    --running_;
    ++ended_count_;
    ended_.notify_all();
  }
}

}  // namespace quire::store

#include "services/store/server/stream_watch.h"

#include <algorithm>
#include <mutex>

#include "absl/strings/str_cat.h"

namespace quire::store {
namespace {

int64_t SteadyMs() {
  using std::chrono::steady_clock;
  return std::chrono::duration_cast<std::chrono::milliseconds>(steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

StreamWatch::StreamWatch(std::chrono::milliseconds idle_limit)
    : idle_limit_(idle_limit), thread_([this] { Run(); }) {}

StreamWatch::~StreamWatch() {
  {
    std::lock_guard lock(mu_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void StreamWatch::Run() {
  std::unique_lock lock(mu_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !streams_.empty(); });
    if (stopping_) return;
    int64_t now = SteadyMs(), oldest = now;
    for (Stream* stream : streams_) {
      int64_t last = stream->last_ms_.load(std::memory_order_relaxed);
      if (now - last < idle_limit_.count()) {
        oldest = std::min(oldest, last);
      } else if (!stream->expired_.exchange(true)) {
        stream->context_.TryCancel();
      }
    }
    std::chrono::milliseconds pause(std::max<int64_t>(1, oldest + idle_limit_.count() - now));
    if (changed_.wait_for(lock, pause, [this] { return stopping_; })) return;
  }
}

void StreamWatch::CancelAll() {
  std::lock_guard lock(mu_);
  for (Stream* stream : streams_) stream->context_.TryCancel();
}

StreamWatch::Stream::Stream(StreamWatch& watch, grpc::ServerContext& context)
    : watch_(watch), context_(context), last_ms_(SteadyMs()) {
  {
    std::lock_guard lock(watch_.mu_);
    watch_.streams_.insert(this);
  }
  watch_.changed_.notify_all();
}

StreamWatch::Stream::~Stream() {
  std::lock_guard lock(watch_.mu_);
  watch_.streams_.erase(this);
}

void StreamWatch::Stream::Progress() { last_ms_.store(SteadyMs(), std::memory_order_relaxed); }

absl::Status StreamWatch::Stream::Broken() const {
  if (expired_)
    return absl::DeadlineExceededError(
        absl::StrCat("the stream was idle for ", watch_.idle_limit_.count(), " ms"));
  if (context_.deadline() <= std::chrono::system_clock::now())
    return absl::DeadlineExceededError("the call's deadline has passed");
  return absl::CancelledError("the client is gone");
}

}  // namespace quire::store

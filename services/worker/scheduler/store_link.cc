#include "services/worker/scheduler/store_link.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace quire::worker {
namespace {

// Whether a status speaks of the store as a whole. Refusals of one call (a tenant it may not name, a full
// tier, a missing parent) don't.
bool IsOutage(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kUnauthenticated:
      return true;
    default:
      return false;
  }
}

}  // namespace

StoreLink::StoreLink(std::shared_ptr<store::KvStore> store, const Layout& layout,
                     const StoreLinkOptions& options, WorkerMetrics& metrics)
    : store_(std::move(store)),
      layout_(layout),
      fingerprint_(layout.Fingerprint()),
      options_(options),
      metrics_(metrics),
      thread_([this] { Run(); }) {}

StoreLink::~StoreLink() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

bool StoreLink::Wait(bool wanted, std::chrono::milliseconds timeout) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, timeout, [&] { return usable_ == wanted; });
}

void StoreLink::WaitForFirstAttempt(std::chrono::milliseconds timeout) const {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [&] { return attempted_; });
}

absl::Status StoreLink::Register() {
  absl::StatusOr<Digest> theirs = store_->RegisterLayout(layout_);
  if (!theirs.ok()) return theirs.status();
  if (*theirs != fingerprint_) {
    return absl::UnknownError(absl::StrCat("the store gives this layout the fingerprint ", theirs->Hex(),
                                           ", it is ", fingerprint_.Hex()));
  }
  return absl::OkStatus();
}

void StoreLink::Succeeded() {
  std::lock_guard lock(mutex_);
  failed_calls_ = 0;
}

void StoreLink::Failed(StoreOp op, const absl::Status& status) {
  metrics_.store_failures[static_cast<size_t>(op)]->Increment();
  bool opened = false;
  if (IsOutage(status.code())) {
    std::lock_guard lock(mutex_);
    // Calls that were under way when the circuit opened say nothing new.
    opened = usable_;
    if (opened) {
      SetUsable(false);
      next_attempt_ = Clock::now() + Pause(failed_calls_++);
    }
  }
  if (opened) {
    changed_.notify_all();
    spdlog::warn("store not used until it answers again: {} failed: {}", Name(op), status.ToString());
  } else {
    spdlog::debug("store: {} failed: {}", Name(op), status.ToString());
  }
}

void StoreLink::SetUsable(bool usable) {
  usable_.store(usable, std::memory_order_release);
  metrics_.store_connected.Set(usable ? 1 : 0);
}

StoreLink::Clock::duration StoreLink::Pause(int failures) const {
  auto pause = options_.first_retry * (int64_t{1} << std::min(failures, 20));
  return std::min<Clock::duration>(pause, options_.longest_retry);
}

void StoreLink::Run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (usable_) {
      changed_.wait(lock, [&] { return stopping_ || !usable_; });
      continue;
    }
    if (changed_.wait_until(lock, next_attempt_, [&] { return stopping_; })) return;
    lock.unlock();
    absl::Status status = Register();
    if (!status.ok()) metrics_.store_failures[static_cast<size_t>(StoreOp::kRegister)]->Increment();
    lock.lock();
    attempted_ = true;
    if (status.ok()) {
      SetUsable(true);
      failed_attempts_ = 0;
      spdlog::info("store connected");
    } else {
      if (failed_attempts_ == 0) spdlog::warn("store can't be used: {}", status.ToString());
      next_attempt_ = Clock::now() + Pause(failed_attempts_++);
    }
    changed_.notify_all();
  }
}

}  // namespace quire::worker

// The worker's connection to its store: whether it may be used now, and its way back after a failure.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "absl/status/status.h"
#include "services/store/api/kv_store.h"
#include "services/worker/scheduler/worker_metrics.h"

namespace quire::worker {

struct StoreLinkOptions {
  std::chrono::milliseconds first_retry{250};  // doubled with every failure in a row
  std::chrono::milliseconds longest_retry{30'000};
};

// A circuit breaker around a KvStore. A failure of the store as a whole (down, out of time, a broken call)
// opens it: requests then go on at once as if there were no store, while a thread of its own tries
// RegisterLayout again, with growing pauses, until that works. Pauses after a call start over only when a
// fetch has worked, so that a store which registers quickly and fetches slowly is not waited for by request
// after request. Thread-safe.
class StoreLink {
 public:
  using Clock = std::chrono::steady_clock;

  StoreLink(std::shared_ptr<store::KvStore> store, const Layout& layout, const StoreLinkOptions& options,
            WorkerMetrics& metrics);
  ~StoreLink();

  bool usable() const { return usable_.load(std::memory_order_acquire); }
  // Waits until usable() is `wanted`; false if that took longer than `timeout`.
  bool Wait(bool wanted, std::chrono::milliseconds timeout) const;
  // Waits until the first attempt to register has ended, well or not.
  void WaitForFirstAttempt(std::chrono::milliseconds timeout) const;

  store::KvStore& store() { return *store_; }
  store::Namespace NamespaceOf(const std::string& tenant) const { return {tenant, fingerprint_}; }

  // Makes the layout known to a store that said NOT_FOUND: it has been restarted.
  absl::Status Register();
  // A fetch has worked.
  void Succeeded();
  // A call has failed: counted, and the circuit opens if the failure is the store's rather than this call's
  // own.
  void Failed(StoreOp op, const absl::Status& status);

 private:
  void Run();
  void SetUsable(bool usable);
  Clock::duration Pause(int failures) const;  // before the attempt after so many in a row

  const std::shared_ptr<store::KvStore> store_;
  const Layout layout_;
  const Digest fingerprint_;
  const StoreLinkOptions options_;
  WorkerMetrics& metrics_;

  std::atomic<bool> usable_ = false;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool stopping_ = false, attempted_ = false;
  int failed_calls_ = 0;     // outages in a row without a fetch that worked between them
  int failed_attempts_ = 0;  // in a row
  Clock::time_point next_attempt_ = Clock::now();
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace quire::worker

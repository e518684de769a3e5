// Many requests on one engine, in turns.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "services/store/api/kv_store.h"
#include "services/worker/scheduler/generation.h"
#include "services/worker/scheduler/offloader.h"
#include "services/worker/scheduler/prefix_cache.h"
#include "services/worker/scheduler/request.h"
#include "services/worker/scheduler/store_link.h"

namespace quire::worker {

struct SchedulerOptions {
  uint32_t max_running = 8;     // requests that hold KV at a time; at least 1
  uint32_t max_waiting = 64;    // requests in the queue behind them
  uint32_t chunk_tokens = 512;  // prompt tokens computed between two rounds of decode steps; a multiple of 64
  std::chrono::milliseconds store_timeout{2000};  // how long a request waits for its prefix
  int fetch_threads = 4;                          // prefixes fetched at a time
  StoreLinkOptions link;
  OffloaderOptions offloader;

  // INVALID_ARGUMENT naming the field, the limit and the value.
  absl::Status Validate() const;
};

struct LoadFigures {
  uint32_t running = 0, waiting = 0, max_running = 0, max_waiting = 0;
  uint64_t kv_bytes = 0;
  bool store_connected = false;
};

// Requests are admitted first come, first served. One thread goes round: each decoding request gets one
// token, then prefilling requests get chunk_tokens between them, the one that waited longest for its turn
// first. So decodes go on while long prompts are computed, and a short prompt overtakes a long one. All calls
// are thread-safe.
class Scheduler {
 public:
  // `engine` is borrowed and must outlive the scheduler, as must `metrics`. `store` may be null. Waits for
  // the store to answer once, at most store_timeout.
  static absl::StatusOr<std::unique_ptr<Scheduler>> Start(Engine& engine,
                                                          std::shared_ptr<store::KvStore> store,
                                                          const SchedulerOptions& options,
                                                          WorkerMetrics& metrics);
  // Aborts what runs. Waits for calls to the engine and the store that are under way.
  ~Scheduler();

  // INVALID_ARGUMENT; ALREADY_EXISTS for an id in use; RESOURCE_EXHAUSTED if the queue is full; UNAVAILABLE
  // while draining.
  absl::StatusOr<std::shared_ptr<Generation>> Submit(GenerateSpec spec);
  // Cancels by id; false if there is no such request.
  bool Abort(const std::string& id);
  LoadFigures Load() const;
  // Refuses new requests, lets the others finish until `timeout`, then aborts them; then lets the offload
  // finish in what time is left.
  void Drain(std::chrono::milliseconds timeout);

  // Null without a store.
  StoreLink* store_link() { return link_.get(); }
  Offloader* offloader() { return offloader_.get(); }

 private:
  using Clock = Request::Clock;
  Scheduler(Engine& engine, const SchedulerOptions& options, WorkerMetrics& metrics);

  void Run();
  void Admit();
  void EndCancelled();
  bool Round();
  bool RestoreTurn(Clock::time_point now);
  bool DecodeTurn();
  bool PrefillTurn();
  void Retire();
  void Forget(const Request& request);  // REQUIRES: mutex_ held
  Clock::time_point NextDeadline() const;

  Engine& engine_;
  const SchedulerOptions options_;
  WorkerMetrics& metrics_;
  const std::shared_ptr<WakeUp> wake_up_ = std::make_shared<WakeUp>();
  std::unique_ptr<StoreLink> link_;
  std::unique_ptr<Offloader> offloader_;
  std::unique_ptr<PrefixCache> cache_;
  RequestContext context_;

  mutable std::mutex mutex_;
  std::condition_variable idle_;  // nothing waits or runs
  bool draining_ = false, stopping_ = false;
  std::deque<std::unique_ptr<Request>> waiting_;
  absl::flat_hash_map<std::string, std::shared_ptr<Generation>> by_id_;  // waiting and running
  uint32_t running_count_ = 0;
  std::atomic<uint64_t> kv_bytes_ = 0;

  std::vector<std::unique_ptr<Request>> running_;  // the scheduler thread's, in order of arrival
  uint64_t turn_ = 0;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace quire::worker

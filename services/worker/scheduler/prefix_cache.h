// Reading prefixes from the store, off the scheduler's thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/block/object.h"
#include "services/worker/scheduler/store_link.h"
#include "services/worker/scheduler/wake_up.h"
#include "services/worker/scheduler/worker_metrics.h"

namespace quire::worker {

// A stored object as it came, not yet verified by the engine.
using ObjectBytes = std::shared_ptr<const std::vector<uint8_t>>;

// The identities of a prompt's whole blocks that leave at least one token to compute (something has to give
// the first logits).
std::vector<BlockIdentity> UsefulBlocks(const Digest& root, std::span<const uint32_t> prompt);

// One request's fetch. The scheduler takes objects as they come; after Abandon nothing more comes and nobody
// waits for it.
class PrefixFetch {
 public:
  using Clock = std::chrono::steady_clock;

  PrefixFetch(std::string tenant, std::vector<BlockIdentity> blocks, Clock::time_point deadline)
      : tenant_(std::move(tenant)), blocks_(std::move(blocks)), deadline_(deadline) {}

  Clock::time_point deadline() const { return deadline_; }
  // Objects of the chain in order, from where the last call ended; at most `most`.
  std::vector<ObjectBytes> Take(size_t most);
  // Whether nothing more will come. Objects may be left to take.
  bool ended() const;
  bool has_objects() const;
  // Ends the fetch now. True if it was still under way.
  bool Abandon();

 private:
  friend class PrefixCache;
  const std::string tenant_;
  const std::vector<BlockIdentity> blocks_;
  const Clock::time_point deadline_;
  mutable std::mutex mutex_;
  std::deque<ObjectBytes> objects_;
  bool ended_ = false;
};

// Threads that look prefixes up and fetch them. Thread-safe. Failures are counted and reported to the link;
// to a request every one of them looks like a shorter prefix.
class PrefixCache {
 public:
  PrefixCache(StoreLink& link, int threads, std::shared_ptr<WakeUp> scheduler, WorkerMetrics& metrics);
  // Waits for calls to the store that are under way.
  ~PrefixCache();

  // Null if the store can't be used now or there is nothing to look up.
  std::shared_ptr<PrefixFetch> Start(std::string tenant, std::vector<BlockIdentity> blocks,
                                     std::chrono::milliseconds timeout);

 private:
  void Run();
  void Serve(PrefixFetch& fetch);
  uint32_t Lookup(PrefixFetch& fetch);  // leading blocks stored
  void Get(PrefixFetch& fetch, uint32_t blocks);

  StoreLink& link_;
  const std::shared_ptr<WakeUp> scheduler_;
  WorkerMetrics& metrics_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::deque<std::shared_ptr<PrefixFetch>> queue_;
  std::vector<std::thread> threads_;
};

}  // namespace quire::worker

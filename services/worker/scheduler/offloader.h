// Writing finished blocks to the store, in the background.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "services/worker/engine/engine.h"
#include "services/worker/scheduler/store_link.h"
#include "services/worker/scheduler/worker_metrics.h"

namespace quire::worker {

struct OffloaderOptions {
  uint64_t max_queued_bytes = uint64_t{256} << 20;  // of objects offered and not yet written
};

// The blocks of one sequence on their way to the store. Made by the scheduler with its sequence, filled by
// Offloader::Offer.
//
// The whole chain is kept, not only what is new: a block is stored only beneath its parent, so when the store
// has lost the beginning (a restart, an eviction) it is written again from the first block on. Guarded by the
// offloader.
class OffloadChain {
 public:
  // `stored`: leading blocks that came from the store.
  OffloadChain(std::string tenant, size_t stored) : tenant_(std::move(tenant)), stored_(stored) {}

 private:
  friend class Offloader;
  const std::string tenant_;
  std::vector<SealedBlock> blocks_;
  size_t stored_;
  uint64_t queued_bytes_ = 0;  // of blocks_ past stored_, as counted in the offloader's total
  bool queued_ = false;        // in the queue or being written
  bool closed_ = false;        // no more offers come
  bool given_up_ = false;      // dropped: nothing of it is written any more
  int restarts_ = 0;           // times its beginning was found missing
};

// One thread that writes chains in turns, a few blocks each, parents first. Offer never waits: what does not
// fit the queue is offered again with the sequence's next block and dropped at its end. Thread-safe.
class Offloader {
 public:
  Offloader(StoreLink& link, const OffloaderOptions& options, WorkerMetrics& metrics);
  // Drops what is queued; waits for a call to the store that is under way.
  ~Offloader();

  // `blocks`: all whole blocks of the sequence so far. `last`: the sequence has ended.
  void Offer(const std::shared_ptr<OffloadChain>& chain, std::span<const SealedBlock> blocks, bool last);
  // Removes a block that turned out to be something else than it should be, so that the right one can take
  // its place.
  void Remove(const std::string& tenant, const Digest& key);
  // Waits until nothing is queued or being written; false if that took longer than `timeout`.
  bool Flush(std::chrono::milliseconds timeout);

 private:
  struct Removal {
    std::string tenant;
    Digest key;
  };
  // A few blocks of a chain, taken out of it to be written without the lock.
  struct Batch {
    std::shared_ptr<OffloadChain> chain;
    size_t first = 0;
    std::vector<SealedBlock> blocks;
  };
  struct Written {
    size_t blocks = 0;  // leading blocks of the batch that the store now has
    absl::Status status;
  };

  void Run();
  void Append(OffloadChain& chain, std::span<const SealedBlock> blocks);
  Batch NextBatch();
  Written Write(const Batch& batch);
  absl::Status WriteBlock(store::PutSession& session, uint32_t block, const SealedBlock& sealed);
  void Settle(Batch batch, const Written& written);
  void Requeue(std::shared_ptr<OffloadChain> chain);
  void Restart(OffloadChain& chain);
  void GiveUp(OffloadChain& chain);

  StoreLink& link_;
  const OffloaderOptions options_;
  WorkerMetrics& metrics_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false, writing_ = false;
  uint64_t queued_bytes_ = 0;
  std::deque<std::shared_ptr<OffloadChain>> queue_;
  std::deque<Removal> removals_;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace quire::worker

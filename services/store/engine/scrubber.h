// Checks in the background what the tiers hold: all copies of all blocks, round after round, in the order of
// the blocks' keys, at a set rate. A copy whose bytes are wrong is dropped before anybody asks for it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "services/store/engine/counters.h"
#include "services/store/engine/index.h"

namespace quire::store {

struct ScrubOptions {
  uint64_t bytes_per_second = 0;  // of all tiers together; 0: no scrub
  // While the store has other work to do, a copy's turn costs so many times its bytes.
  uint32_t load_factor = 4;
  // A round begins no sooner after the one before began: what is small need not be read all the time.
  int64_t least_round_ms = 60'000;
  // Where the place is kept that the next process goes on from; empty: it begins anywhere.
  std::string position_file;
};

// Step and Start are for one thread; the index and all functions are borrowed.
class Scrubber {
 public:
  // Reads one copy and drops it if it is wrong: OK; DATA_LOSS: it was dropped; else it could not be read.
  using Check = std::function<absl::Status(const BlockName&, const StoredObjectPtr&)>;
  // Something that changes whenever the store does something else.
  using Activity = std::function<uint64_t()>;

  Scrubber(ScrubOptions options, const BlockIndex& index, StoreCounters& counters, Check check,
           Activity activity);
  ~Scrubber();  // ends the thread; keeps the place

  // Checks the next copy if its time has come by `now_us`, of any steady clock. When to call again.
  // Over any time at most its worth of bytes is read, one second's more, and one copy.
  int64_t Step(int64_t now_us);
  // Steps on a thread of its own from now on, by the machine's clock.
  void Start();

 private:
  void Run();
  // The next copy of this round, of the block at place_; null: the round is over.
  StoredObjectPtr NextCopy();
  int64_t EndRound(int64_t now_us);
  void CheckOne(const StoredObjectPtr& copy);
  void LoadPlace();
  void SavePlace() const;

  const ScrubOptions options_;
  const BlockIndex& index_;
  StoreCounters& counters_;
  const Check check_;
  const Activity activity_;

  bool in_round_ = false;
  int64_t due_us_ = INT64_MIN, round_began_us_ = INT64_MIN, saved_us_ = INT64_MIN;
  uint64_t seen_activity_ = 0;
  BlockName place_;                              // the last block that was begun in this round
  std::deque<BlockName> names_;                  // the next ones, in order
  std::vector<std::pair<Part, Tier>> at_place_;  // copies of the block at place_, still to be checked

  std::mutex mu_;  // guards stop_
  std::condition_variable stopped_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace quire::store

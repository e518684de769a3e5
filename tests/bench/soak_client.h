// A soak's clients: prompts of several tenants, looked up, fetched, checked and stored, and all else that
// clients ask of a store.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "services/store/client/remote_store.h"
#include "tests/bench/soak_blocks.h"

namespace quire::bench {

enum class SoakCall : uint8_t { kLookup, kGet, kPut, kDelete, kPin, kUnpin, kTouch, kPrefetch, kStats };
inline constexpr size_t kSoakCalls = 9;
const char* Name(SoakCall call);

// What became of all calls; shared by the clients. Thread-safe.
class SoakTally {
 public:
  // `most`: after so many calls `over` is true.
  explicit SoakTally(uint64_t most) : most_(most) {}

  void Begun() { begun_.fetch_add(1, std::memory_order_relaxed); }
  void Ended(SoakCall call, const absl::Status& status, double seconds);
  void Blocks(uint64_t right, uint64_t missed, uint64_t wrong);
  void Event() { events_.fetch_add(1, std::memory_order_relaxed); }
  void WatchBroke(const absl::Status& why);
  void Stop() { stopped_.store(true, std::memory_order_relaxed); }
  bool over() const { return stopped_.load(std::memory_order_relaxed) || ended() >= most_; }

  // Waits until so many calls have ended, or all are over, or `until`.
  void Await(uint64_t ended, std::chrono::steady_clock::time_point until);

  uint64_t begun() const { return begun_.load(std::memory_order_relaxed); }
  uint64_t ended() const { return ended_.load(std::memory_order_relaxed); }
  uint64_t events() const { return events_.load(std::memory_order_relaxed); }
  uint64_t right() const { return right_.load(std::memory_order_relaxed); }
  uint64_t missed() const { return missed_.load(std::memory_order_relaxed); }
  uint64_t wrong() const { return wrong_.load(std::memory_order_relaxed); }
  // Seconds: that `share` (0…1) of a kind's calls took no longer than; 0 where there were none.
  double Percentile(SoakCall call, double share) const;
  uint64_t Count(SoakCall call) const;
  // How often calls, and watches, ended with each status.
  std::map<absl::StatusCode, uint64_t> statuses() const;

 private:
  const uint64_t most_;
  std::atomic<uint64_t> begun_{0}, ended_{0}, events_{0}, right_{0}, missed_{0}, wrong_{0};
  std::atomic<bool> stopped_{false};
  mutable std::mutex mu_;  // guards all below
  std::condition_variable changed_;
  std::array<std::vector<float>, kSoakCalls> seconds_;
  std::map<absl::StatusCode, uint64_t> statuses_;
};

// One client; Run is for a thread of its own.
class SoakClient {
 public:
  // All are borrowed. `arena_bytes`: as RemoteStoreOptions'.
  SoakClient(const SoakBlocks& blocks, SoakTally& tally, const std::string& address, uint64_t arena_bytes,
             uint32_t seed);
  void Run();  // until the tally is over

 private:
  absl::Status Call(SoakCall call, const std::function<absl::Status()>& make);
  // False: the store is away.
  bool Prompt(const SoakChain& chain);
  bool Get(const SoakChain& chain, size_t blocks);
  bool Put(const SoakChain& chain, size_t from);
  bool Others(const SoakChain& chain);

  const SoakBlocks& blocks_;
  SoakTally& tally_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<store::RemoteStore> store_;
  const Digest fingerprint_;
  std::mt19937 random_;
};

// Reads a tenant's events until the tally is over; goes on after each break.
class SoakWatcher {
 public:
  SoakWatcher(SoakTally& tally, const std::string& address, std::string tenant);
  void Run();
  void Cancel();  // from another thread, once the tally is over

 private:
  SoakTally& tally_;
  std::shared_ptr<grpc::Channel> channel_;
  const std::string tenant_;
  std::mutex mu_;  // guards cancel_ and ended_
  std::function<void()> cancel_;
  bool ended_ = false;
};

}  // namespace quire::bench

// Ends a store's work in an orderly way: no new writers, the running ones finish.
#pragma once

#include <chrono>
#include <functional>
#include <mutex>

#include "absl/status/status.h"
#include "services/store/engine/local_store.h"
#include "services/store/server/drain_gate.h"
#include "services/store/server/stream_watch.h"
#include "services/store/server/watch_stream.h"

namespace quire::store {

// Thread-safe.
class Drainer {
 public:
  static constexpr std::chrono::milliseconds kLongest = std::chrono::hours(24);

  // References are borrowed.
  Drainer(LocalStore& store, DrainGate& gate, WatchLimit& watchers, StreamWatch& streams)
      : store_(store), gate_(gate), watchers_(watchers), streams_(streams) {}

  // Called by each Drain when it begins: readiness is to say no.
  void OnDrain(std::function<void()> begins);
  // From now on Put, AttachArena and Watch are UNAVAILABLE, and running watches end. Waits until the running
  // Puts have ended, ends the arenas, and waits until the lower tiers have what they are to have; at the
  // deadline all running streams are cancelled, which is DEADLINE_EXCEEDED. Reads go on. Asked again it waits
  // again.
  absl::Status Drain(std::chrono::milliseconds deadline);

 private:
  LocalStore& store_;
  DrainGate& gate_;
  WatchLimit& watchers_;
  StreamWatch& streams_;
  std::mutex mu_;  // guards begins_
  std::function<void()> begins_;
};

}  // namespace quire::store

// Watching a store: a tenant's events, as they come.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "core/base/digest.h"
#include "services/store/api/kv_store.h"

namespace quire::store {

struct WatchOptions {
  std::string tenant;                                // "": one's own
  std::optional<Digest> fingerprint = std::nullopt;  // none: of all layouts
  // To go on where another stream ended: its last event's sequence plus one, and its run. 0: from now.
  uint64_t from_sequence = 0, run = 0;
};

struct WatchedEvent {
  enum class Kind { kStored = 0, kDegraded = 1, kMoved = 2, kRemoved = 3 };
  uint64_t sequence = 0;
  uint64_t run = 0;
  Kind kind = Kind::kStored;
  Digest key, fingerprint;
  Tier tier = Tier::kNone;
  uint32_t levels = 0;
};
const char* Name(WatchedEvent::Kind kind);  // "stored", …

// Next is for one thread; Cancel for any.
class EventStream {
 public:
  // Returns once the store has begun to watch: what happens from then on is not missed. OUT_OF_RANGE if
  // from_sequence is no longer kept, or is not to come; UNAVAILABLE, PERMISSION_DENIED, …
  static absl::StatusOr<std::unique_ptr<EventStream>> Open(const std::shared_ptr<grpc::Channel>& channel,
                                                           const WatchOptions& options);
  ~EventStream();  // cancels

  // Waits for the next event. OUT_OF_RANGE if this reader has been too slow; CANCELLED after Cancel;
  // UNAVAILABLE when the store goes. No event comes after an error.
  absl::StatusOr<WatchedEvent> Next();
  void Cancel();

 private:
  EventStream() = default;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire::store

#include "services/store/server/watch_stream.h"

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/server/drain_gate.h"
#include "services/store/wire/convert.h"
#include "services/store/wire/metadata.h"

namespace quire::store {
namespace {

constexpr size_t kEventsAtATime = 256;
// A call of the sync API is not told that its client has gone: it looks.
constexpr auto kLookAround = std::chrono::milliseconds(100);
// A watch may outlive the identity that began it by this much.
constexpr auto kAskAgain = std::chrono::seconds(5);

}  // namespace

bool WatchLimit::Enter() {
  if (running_.fetch_add(1, std::memory_order_relaxed) < most_) return true;
  Leave();
  return false;
}

absl::Status WatchStream::Run() {
  QUIRE_RETURN_IF_ERROR(access_.Tenant(context_, request_.namespace_().tenant()).status());
  if (limit_.closed()) return DrainGate::Draining();
  if (!limit_.Enter()) {
    return absl::ResourceExhaustedError(absl::StrCat(limit_.most(), " watches are running, the limit"));
  }
  absl::Status status = Start();
  if (status.ok()) status = Follow();
  limit_.Leave();
  return status;
}

absl::Status WatchStream::Start() {
  QUIRE_ASSIGN_OR_RETURN(std::string tenant, access_.Tenant(context_, request_.namespace_().tenant()));
  if (!request_.namespace_().fingerprint().empty()) {
    QUIRE_ASSIGN_OR_RETURN(fingerprint_,
                           DigestFromProto("namespace.fingerprint", request_.namespace_().fingerprint()));
  }
  EventLog& events = store_.events();
  if (request_.run() != 0 && request_.run() != events.run()) {
    return absl::OutOfRangeError("the store has been restarted: its events are numbered from 1 again");
  }
  QUIRE_ASSIGN_OR_RETURN(tenant_, store_.TenantToWatch(tenant));
  next_ = request_.from_sequence() != 0 ? request_.from_sequence() : events.NextSequence(tenant_);
  response_.set_run(events.run());
  // What is too old now is said before the stream has begun.
  QUIRE_RETURN_IF_ERROR(events.Read(tenant_, next_, 0, std::chrono::steady_clock::now()).status());
  context_.AddInitialMetadata(kWatchBegun, "1");
  writer_.SendInitialMetadata();
  return absl::OkStatus();
}

absl::Status WatchStream::Follow() {
  auto known_until = std::chrono::steady_clock::now() + kAskAgain;
  while (!context_.IsCancelled()) {
    if (limit_.closed()) return DrainGate::Draining();
    auto now = std::chrono::steady_clock::now();
    if (now >= known_until) {
      QUIRE_RETURN_IF_ERROR(access_.Tenant(context_, request_.namespace_().tenant()).status());
      known_until = now + kAskAgain;
    }
    stream_.Progress();
    QUIRE_ASSIGN_OR_RETURN(std::vector<StoreEvent> events,
                           store_.events().Read(tenant_, next_, kEventsAtATime, now + kLookAround));
    for (const StoreEvent& event : events) {
      QUIRE_RETURN_IF_ERROR(Write(event));
      ++next_;
    }
  }
  return stream_.Broken();
}

absl::Status WatchStream::Write(const StoreEvent& event) {
  std::shared_ptr<const KnownLayout> layout = store_.LayoutOf(event);
  if (layout == nullptr || (fingerprint_ && *fingerprint_ != layout->fingerprint)) return absl::OkStatus();
  response_.set_sequence(next_);
  response_.set_kind(static_cast<v1::WatchResponse::Kind>(event.kind));
  response_.set_key(std::string(event.key.AsString()));
  response_.set_tier(static_cast<v1::Tier>(event.tier));
  response_.set_levels(event.levels);
  response_.set_fingerprint(std::string(layout->fingerprint.AsString()));
  if (!writer_.Write(response_)) return stream_.Broken();
  stream_.Progress();
  return absl::OkStatus();
}

}  // namespace quire::store

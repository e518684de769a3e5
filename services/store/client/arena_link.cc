#include "services/store/client/arena_link.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <condition_variable>
#include <thread>
#include <utility>

#include "core/base/status_macros.h"
#include "services/runtime/status.h"

namespace quire::store {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kAttachTimeout(5'000);
constexpr milliseconds kFirstPause(500), kLongestPause(60'000);

// Cancels a call that takes too long; a stream that is to stay open cannot have a deadline.
class Watchdog {
 public:
  Watchdog(grpc::ClientContext& context, milliseconds after)
      : thread_([this, &context, after] {
          std::unique_lock lock(mu_);
          if (!changed_.wait_for(lock, after, [this] { return over_; })) context.TryCancel();
        }) {}
  ~Watchdog() {
    {
      std::lock_guard lock(mu_);
      over_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

 private:
  std::mutex mu_;  // guards over_
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace

ArenaLink::Attachment::~Attachment() {
  if (stream == nullptr) return;
  context.TryCancel();
  stream->Finish();
}

ArenaLink::~ArenaLink() = default;

absl::StatusOr<std::unique_ptr<ArenaLink::Attachment>> ArenaLink::Attach() {
  auto attachment = std::make_unique<Attachment>();
  v1::AttachArenaRequest request;
  request.set_bytes(bytes_);
  v1::AttachArenaResponse response;
  {
    Watchdog watchdog(attachment->context, kAttachTimeout);
    attachment->stream = stub_.AttachArena(&attachment->context, request);
    if (!attachment->stream->Read(&response)) {
      absl::Status status = runtime::FromGrpc(attachment->stream->Finish());
      attachment->stream.reset();
      return status.ok() ? absl::UnavailableError("the store ended AttachArena at once") : status;
    }
  }
  QUIRE_ASSIGN_OR_RETURN(attachment->arena,
                         AttachedArena::Claim(response.socket(), response.token(), response.arena(),
                                              response.bytes(), kAttachTimeout));
  return attachment;
}

std::shared_ptr<AttachedArena> ArenaLink::Get() {
  std::lock_guard lock(mu_);
  if (attachment_ != nullptr && attachment_->arena->usable()) return attachment_->arena;
  if (steady_clock::now() < next_attempt_) return nullptr;
  attachment_.reset();  // who still uses the old arena keeps its memory
  absl::StatusOr<std::unique_ptr<Attachment>> attached = Attach();
  if (attached.ok()) {
    attachment_ = *std::move(attached);
    pause_ = milliseconds(0);
    return attachment_->arena;
  }
  pause_ = std::clamp(2 * pause_, kFirstPause, kLongestPause);
  next_attempt_ = steady_clock::now() + pause_;
  spdlog::info("store client: no arena, bytes go over gRPC: {}", attached.status().ToString());
  return nullptr;
}

}  // namespace quire::store

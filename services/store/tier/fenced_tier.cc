#include "services/store/tier/fenced_tier.h"

#include <algorithm>
#include <bit>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quire::store {
namespace {

FenceOptions Sane(FenceOptions options) {
  options.consecutive_failures = std::max(1, options.consecutive_failures);
  options.window = std::clamp(options.window, 1, 64);
  options.first_backoff = std::max(options.first_backoff, std::chrono::milliseconds(1));
  options.max_backoff = std::max(options.max_backoff, options.first_backoff);
  return options;
}

bool IsFailure(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsDataLoss(status);
}

std::string_view KindName(Tier kind) {
  switch (kind) {
    case Tier::kGpu:
      return "gpu";
    case Tier::kHost:
      return "host";
    case Tier::kDisk:
      return "disk";
    case Tier::kRedis:
      return "redis";
    case Tier::kNone:
      break;
  }
  return "none";
}

}  // namespace

FencedTier::FencedTier(std::shared_ptr<ObjectTier> tier, FenceOptions options)
    : tier_(std::move(tier)),
      options_(Sane(std::move(options))),
      model_(options_.latency_us, options_.bytes_per_us) {}

FencedTier::Stats FencedTier::stats() const {
  std::lock_guard lock(mu_);
  Stats stats = stats_;
  stats.state = state_;
  return stats;
}

bool FencedTier::admits() const {
  std::lock_guard lock(mu_);
  return state_ == State::kClosed || (state_ == State::kOpen && options_.now() >= open_until_);
}

FencedTier::Ticket FencedTier::Enter() {
  std::lock_guard lock(mu_);
  if (state_ == State::kClosed) return {absl::OkStatus(), epoch_};
  if (auto now = options_.now(); state_ == State::kOpen && now >= open_until_) {
    state_ = State::kHalfOpen;
    return {absl::OkStatus(), ++epoch_};
  }
  ++stats_.refused;
  return {absl::UnavailableError(absl::StrCat("tier ", std::string(KindName(tier_->kind())),
                                              " is fenced off after failures; it is tried again within ",
                                              backoff_.count(), " ms")),
          epoch_};
}

void FencedTier::Leave(const Ticket& ticket, bool failed) {
  std::lock_guard lock(mu_);
  if (failed) ++stats_.failures;
  if (ticket.epoch != epoch_) return;
  if (state_ == State::kHalfOpen) {
    if (failed) return Open(options_.now());
    state_ = State::kClosed;
    ++epoch_;
    backoff_ = {};
    consecutive_ = 0;
    recent_ = 0;
    seen_ = 0;
    return;
  }
  consecutive_ = failed ? consecutive_ + 1 : 0;
  recent_ = recent_ << 1 | (failed ? 1 : 0);
  seen_ = std::min(seen_ + 1, options_.window);
  if (TooManyFailures()) Open(options_.now());
}

bool FencedTier::TooManyFailures() const {
  if (consecutive_ >= options_.consecutive_failures) return true;
  if (seen_ < options_.window) return false;
  uint64_t window = options_.window == 64 ? ~uint64_t{0} : (uint64_t{1} << options_.window) - 1;
  return std::popcount(recent_ & window) >= options_.failure_rate * options_.window;
}

void FencedTier::Open(FenceOptions::Clock::time_point now) {
  backoff_ = backoff_.count() == 0 ? options_.first_backoff : std::min(backoff_ * 2, options_.max_backoff);
  open_until_ = now + backoff_;
  state_ = State::kOpen;
  ++epoch_;
  ++stats_.opened;
}

absl::Status FencedTier::Call(absl::FunctionRef<absl::Status()> call) {
  Ticket ticket = Enter();
  if (!ticket.refused.ok()) return ticket.refused;
  absl::Status status = call();
  Leave(ticket, IsFailure(status));
  return status;
}

template <typename Request>
void FencedTier::CallBatch(std::span<Request> requests, absl::FunctionRef<void()> call) {
  if (requests.empty()) return;
  Ticket ticket = Enter();
  if (!ticket.refused.ok()) {
    for (Request& r : requests) r.status = ticket.refused;
    return;
  }
  call();
  bool any_ok = std::any_of(requests.begin(), requests.end(), [](const Request& r) { return r.status.ok(); });
  bool any_failed =
      std::any_of(requests.begin(), requests.end(), [](const Request& r) { return IsFailure(r.status); });
  Leave(ticket, any_failed && !any_ok);
}

absl::Status FencedTier::Write(const ObjectName& name, const ObjectRecord& record, Bytes object) {
  return Call([&] { return tier_->Write(name, record, object); });
}

void FencedTier::Read(std::span<ReadRequest> requests) {
  CallBatch(requests, [&] {
    auto start = options_.now();
    tier_->Read(requests);
    std::chrono::duration<double, std::micro> took = options_.now() - start;
    uint64_t bytes = 0;
    for (const ReadRequest& r : requests) {
      if (!r.status.ok()) return;  // a failure's or a miss's time says nothing of a read's
      bytes += r.out.size();
    }
    model_.Observe(bytes, took.count());
  });
}

void FencedTier::Find(std::span<FindRequest> requests) {
  CallBatch(requests, [&] { tier_->Find(requests); });
}

absl::Status FencedTier::DropLevels(const ObjectName& name, const ObjectRecord& record) {
  return Call([&] { return tier_->DropLevels(name, record); });
}

absl::Status FencedTier::Remove(std::span<const ObjectName> names) {
  return Call([&] { return tier_->Remove(names); });
}

absl::Status FencedTier::Scan(absl::FunctionRef<void(const ObjectName&, const ObjectRecord&)> visit) {
  return Call([&] { return tier_->Scan(visit); });
}

absl::Status FencedTier::Flush() {
  return Call([&] { return tier_->Flush(); });
}

}  // namespace quire::store

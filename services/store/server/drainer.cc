#include "services/store/server/drainer.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quire::store {
namespace {

// What a cancelled stream gets to give back what it holds.
constexpr std::chrono::milliseconds kLastMessages(2'000);

}  // namespace

void Drainer::OnDrain(std::function<void()> begins) {
  std::lock_guard lock(mu_);
  begins_ = std::move(begins);
}

absl::Status Drainer::Drain(std::chrono::milliseconds deadline) {
  if (deadline < deadline.zero() || deadline > kLongest) {
    return absl::InvalidArgumentError(
        absl::StrCat("a drain of ", deadline.count(), " ms: 0…", kLongest.count()));
  }
  {
    std::lock_guard lock(mu_);
    if (begins_) begins_();
  }
  gate_.Close();
  watchers_.Close();
  store_.events().Wake();
  const auto until = std::chrono::steady_clock::now() + deadline;
  const uint64_t left = gate_.AwaitEmpty(until);
  if (left > 0) {
    spdlog::warn("store: {} puts were running at the end of the drain and are cancelled", left);
    streams_.CancelAll();
    gate_.AwaitEmpty(until + kLastMessages);
  }
  gate_.Finish();
  // What has been stored goes where it is to last, even if no time is left but for what takes none.
  const auto rest = std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
  absl::Status written = store_.Drain(std::max(rest, left > 0 ? kLastMessages : kLastMessages.zero()));
  if (left == 0) return written;
  return absl::DeadlineExceededError(
      absl::StrCat(left, " puts were still running after ", deadline.count(), " ms and were cancelled"));
}

}  // namespace quire::store

#include "services/worker/scheduler/generation.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace quire::worker {
namespace {

constexpr size_t kMaxIdBytes = 128, kMaxTenantBytes = 256, kMaxSaltBytes = 256;
constexpr size_t kMaxStops = 16, kMaxStopBytes = 1024, kMaxStopTokens = 1024;
constexpr int kMaxTopLogprobs = 20;

absl::Status CheckSize(const char* what, size_t size, size_t limit, const char* unit) {
  if (size <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, " has ", size, " ", unit, ", the limit is ", limit));
}

absl::Status CheckTokens(const char* field, const std::vector<uint32_t>& tokens, uint32_t vocabulary) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < vocabulary) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(field, "[", i, "] is token ", tokens[i], ", the vocabulary has ", vocabulary));
  }
  return absl::OkStatus();
}

absl::Status CheckStops(const std::vector<std::string>& stops) {
  QUIRE_RETURN_IF_ERROR(CheckSize("stop", stops.size(), kMaxStops, "strings"));
  for (size_t i = 0; i < stops.size(); ++i) {
    if (!stops[i].empty() && stops[i].size() <= kMaxStopBytes) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("stop[", i, "] has ", stops[i].size(), " bytes, must have 1 to ", kMaxStopBytes));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status GenerateSpec::Validate(const ModelInfo& model) const {
  QUIRE_RETURN_IF_ERROR(CheckSize("request_id", id.size(), kMaxIdBytes, "bytes"));
  QUIRE_RETURN_IF_ERROR(CheckSize("tenant", tenant.size(), kMaxTenantBytes, "bytes"));
  QUIRE_RETURN_IF_ERROR(CheckSize("salt", salt.size(), kMaxSaltBytes, "bytes"));
  if (prompt.empty()) return absl::InvalidArgumentError("prompt has no tokens");
  // The context holds prompt and answer, and an answer has at least one token.
  if (prompt.size() >= model.context) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt has ", prompt.size(), " tokens, the model's context is ", model.context));
  }
  QUIRE_RETURN_IF_ERROR(CheckTokens("prompt", prompt, model.vocabulary));
  QUIRE_RETURN_IF_ERROR(sampling.Validate(model.vocabulary));
  QUIRE_RETURN_IF_ERROR(CheckStops(stop));
  QUIRE_RETURN_IF_ERROR(CheckSize("stop_tokens", stop_tokens.size(), kMaxStopTokens, "tokens"));
  QUIRE_RETURN_IF_ERROR(CheckTokens("stop_tokens", stop_tokens, model.vocabulary));
  if (top_logprobs < -1 || top_logprobs > kMaxTopLogprobs) {
    return absl::InvalidArgumentError(
        absl::StrCat("top_logprobs is ", top_logprobs, ", must be from -1 to ", kMaxTopLogprobs));
  }
  return absl::OkStatus();
}

std::optional<Output> Generation::Next(std::chrono::milliseconds timeout) {
  std::optional<Output> out;
  bool was_full;
  {
    std::unique_lock lock(mutex_);
    pushed_.wait_for(lock, timeout, [&] { return pending_.has_value(); });
    was_full = pending_.has_value() && pending_->tokens.size() >= kMaxPendingTokens;
    out = std::exchange(pending_, std::nullopt);
  }
  if (was_full) scheduler_->Signal();
  return out;
}

void Generation::Cancel() {
  cancelled_.store(true, std::memory_order_relaxed);
  scheduler_->Signal();
}

bool Generation::Full() const {
  std::lock_guard lock(mutex_);
  return pending_.has_value() && pending_->tokens.size() >= kMaxPendingTokens;
}

void Generation::Push(Output piece) {
  {
    std::lock_guard lock(mutex_);
    if (!pending_.has_value()) {
      pending_ = std::move(piece);
    } else {
      Output& all = *pending_;
      all.text += piece.text;
      all.tokens.insert(all.tokens.end(), piece.tokens.begin(), piece.tokens.end());
      std::move(piece.logprobs.begin(), piece.logprobs.end(), std::back_inserter(all.logprobs));
      all.finish = piece.finish;
      all.usage = piece.usage;
      all.status = std::move(piece.status);
    }
  }
  pushed_.notify_one();
}

}  // namespace quire::worker

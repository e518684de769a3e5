// One request's order and its output: what the scheduler and a reader of tokens share.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "services/worker/engine/engine.h"
#include "services/worker/scheduler/sampler.h"
#include "services/worker/scheduler/wake_up.h"

namespace quire::worker {

enum class CacheUse : uint8_t { kReadWrite = 0, kReadOnly = 1, kBypass = 2 };

struct GenerateSpec {
  std::string id;  // unique among requests in the scheduler; at most 128 bytes; "": the scheduler makes one
  std::vector<uint32_t> prompt;  // token ids
  SamplingParams sampling;
  uint32_t max_tokens = 0;            // 0: until the context is full
  std::vector<std::string> stop;      // at most 16, 1…1024 bytes each
  std::vector<uint32_t> stop_tokens;  // at most 1024, besides the model's own
  bool ignore_eos = false;
  std::string tenant;     // at most 256 bytes
  std::string salt;       // at most 256 bytes
  int top_logprobs = -1;  // −1 none; else the sampled token's own and so many of the best, ≤ 20
  CacheUse cache = CacheUse::kReadWrite;

  // INVALID_ARGUMENT naming the field, the limit and the value.
  absl::Status Validate(const ModelInfo& model) const;
};

enum class Finish : uint8_t {
  kNone = 0,
  kStop = 1,
  kLength = 2,
  kAborted = 3,
  kFailed = 4
};  // FinishReason of the .proto

struct Usage {
  uint32_t prompt_tokens = 0;
  uint32_t completion_tokens = 0;  // sampled, an end token included
  uint32_t cached_tokens = 0;      // prompt tokens whose KV came from the store
  std::chrono::microseconds queue{0}, prefill{0}, restore{0};
};

// A piece of a generation. `text` may lag behind `tokens` while a character or a possible stop string is
// incomplete. A token that ended the generation is neither in `tokens` nor in `text`.
struct Output {
  std::string text;
  std::vector<uint32_t> tokens;
  std::vector<TokenLogprob> logprobs;  // one a token, if asked for
  Finish finish = Finish::kNone;       // set in the last piece
  Usage usage;                         // of the last piece
  absl::Status status;                 // of the last piece: why it failed
};

// Made by Scheduler::Submit. One reader; Cancel from any thread.
class Generation {
 public:
  using Clock = std::chrono::steady_clock;
  // So many tokens may wait for a slow reader before its request is left out of the scheduler's rounds.
  static constexpr size_t kMaxPendingTokens = 64;

  Generation(std::string id, std::shared_ptr<WakeUp> scheduler)
      : id_(std::move(id)), scheduler_(std::move(scheduler)) {}

  const std::string& id() const { return id_; }
  // Waits for output; what piled up since the last call comes as one piece. Nothing if none came in time, or
  // after the last piece.
  std::optional<Output> Next(std::chrono::milliseconds timeout);
  // Ends the generation within a token (a prefill chunk that runs is finished first). Its last piece says
  // kAborted unless it had ended.
  void Cancel();

  // For the scheduler.
  void Push(Output piece);
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }
  bool Full() const;

 private:
  const std::string id_;
  const std::shared_ptr<WakeUp> scheduler_;
  std::atomic<bool> cancelled_ = false;
  mutable std::mutex mutex_;
  std::condition_variable pushed_;
  std::optional<Output> pending_;
};

}  // namespace quire::worker

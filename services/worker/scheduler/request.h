// One request while it runs: restore what the store has of its prompt, compute the rest in chunks, then token
// by token.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "core/text/tokenizer.h"
#include "services/worker/engine/engine.h"
#include "services/worker/scheduler/generation.h"
#include "services/worker/scheduler/offloader.h"
#include "services/worker/scheduler/prefix_cache.h"
#include "services/worker/scheduler/sampler.h"
#include "services/worker/scheduler/stop_matcher.h"
#include "services/worker/scheduler/worker_metrics.h"

namespace quire::worker {

// What every request of a scheduler shares. Borrowed; `cache` and `offloader` are null where there is no
// store.
struct RequestContext {
  Engine& engine;
  WorkerMetrics& metrics;
  PrefixCache* cache = nullptr;
  Offloader* offloader = nullptr;
  StoreLink* link = nullptr;
  std::chrono::milliseconds store_timeout{2000};
  uint32_t chunk_tokens = 512;
};

// Used by the scheduler's thread only, save what Generation shares. Waiting → Start → restoring → prefilling
// → decoding → ended; it may end from every state.
class Request {
 public:
  using Clock = std::chrono::steady_clock;
  enum class State : uint8_t { kWaiting, kRestoring, kPrefilling, kDecoding, kEnded };

  Request(GenerateSpec spec, std::shared_ptr<Generation> generation);
  ~Request();

  State state() const { return state_; }
  const std::shared_ptr<Generation>& generation() const { return generation_; }
  uint64_t kv_bytes() const { return sequence_ == nullptr ? 0 : sequence_->kv_bytes(); }

  // Admission: makes the sequence and starts looking its prompt up. Later calls take the same context.
  void Start(const RequestContext& context);

  // Restoring: takes what has been fetched, a few blocks a call. False if there was nothing to do.
  bool StepRestore(const RequestContext& context, Clock::time_point now);
  // When StepRestore has to be called although nothing was fetched; max() if no time is set.
  Clock::time_point restore_deadline() const;

  // Tokens of the next chunk. Chunks end at multiples of context.chunk_tokens of the sequence, however much
  // was restored, so that a prompt is always cut in the same places.
  uint32_t NextChunk(const RequestContext& context) const;
  void StepPrefill(const RequestContext& context);
  uint64_t last_turn = 0;  // the scheduler's: when it last had a prefill turn

  bool ReadyToDecode() const { return state_ == State::kDecoding && !generation_->Full(); }
  void StepDecode(const RequestContext& context);

  // Ends it and frees its KV. `status` is the reason of kFailed.
  void End(const RequestContext& context, Finish finish, const absl::Status& status = absl::OkStatus());
  // Hands the reader its last piece. REQUIRES: state() == kEnded; once. Apart from End so that a reader who
  // sees the end also sees the place in the queue free.
  void Deliver() { generation_->Push(std::move(last_piece_)); }

 private:
  std::span<const uint32_t> Prompt() const { return spec_.prompt; }
  bool RestoreBlock(const RequestContext& context, const ObjectBytes& object);
  void EndRestore(const RequestContext& context, Clock::time_point now);
  void Compute(const RequestContext& context, std::span<const uint32_t> tokens, bool sample);
  void Sample(const RequestContext& context, std::span<float> logits);
  void CountToken(const RequestContext& context);
  void OfferBlocks(const RequestContext& context, bool last);
  bool IsEnd(uint32_t token) const;

  GenerateSpec spec_;
  const std::shared_ptr<Generation> generation_;
  State state_ = State::kWaiting;
  Sampler sampler_;
  StopMatcher stops_;
  absl::flat_hash_set<uint32_t> end_tokens_;
  uint32_t max_tokens_ = 0;  // the context's end counted in
  std::optional<StreamDecoder> decoder_;
  std::unique_ptr<Sequence> sequence_;
  std::shared_ptr<PrefixFetch> fetch_;
  std::shared_ptr<OffloadChain> chain_;
  size_t offered_ = 0;  // blocks in the last offer
  uint32_t last_token_ = 0;
  Usage usage_;
  Output last_piece_;
  Clock::time_point arrived_ = Clock::now(), started_{}, last_token_at_{};
};

}  // namespace quire::worker

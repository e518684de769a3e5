#include "services/worker/scheduler/request.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/block/keys.h"

namespace quire::worker {
namespace {

// Blocks restored in one turn: as many tokens as a prefill chunk has.
constexpr size_t kBlocksPerRestore = 8;

double Seconds(Request::Clock::duration d) { return std::chrono::duration<double>(d).count(); }
std::chrono::microseconds Micros(Request::Clock::duration d) {
  return std::chrono::duration_cast<std::chrono::microseconds>(d);
}

}  // namespace

Request::Request(GenerateSpec spec, std::shared_ptr<Generation> generation)
    : spec_(std::move(spec)),
      generation_(std::move(generation)),
      sampler_(spec_.sampling),
      stops_(std::move(spec_.stop)) {
  usage_.prompt_tokens = static_cast<uint32_t>(spec_.prompt.size());
}

Request::~Request() = default;

void Request::Start(const RequestContext& context) {
  const ModelInfo& model = context.engine.info();
  started_ = Clock::now();
  usage_.queue = Micros(started_ - arrived_);
  context.metrics.prompt_tokens.Increment(usage_.prompt_tokens);

  uint32_t room = model.context - usage_.prompt_tokens;
  max_tokens_ = spec_.max_tokens == 0 ? room : std::min(spec_.max_tokens, room);
  end_tokens_.insert(spec_.stop_tokens.begin(), spec_.stop_tokens.end());
  if (!spec_.ignore_eos) end_tokens_.insert(model.eos_tokens.begin(), model.eos_tokens.end());
  sampler_.ObservePrompt(spec_.prompt);
  decoder_.emplace(context.engine.tokenizer());

  Digest root = RootKey(model.fingerprint, spec_.salt);
  sequence_ = context.engine.NewSequence(root);
  state_ = State::kPrefilling;
  if (context.cache == nullptr || spec_.cache == CacheUse::kBypass) return;
  fetch_ = context.cache->Start(spec_.tenant, UsefulBlocks(root, spec_.prompt), context.store_timeout);
  if (fetch_ != nullptr) state_ = State::kRestoring;
}

Request::Clock::time_point Request::restore_deadline() const {
  return state_ == State::kRestoring ? fetch_->deadline() : Clock::time_point::max();
}

bool Request::StepRestore(const RequestContext& context, Clock::time_point now) {
  if (now >= fetch_->deadline() && fetch_->Abandon()) {
    context.link->Failed(StoreOp::kTimeout, absl::DeadlineExceededError("a prefix did not come in time"));
  }
  // Read before Take: what came before the end must not be missed.
  bool ended = fetch_->ended();
  std::vector<ObjectBytes> objects = fetch_->Take(kBlocksPerRestore);
  for (const ObjectBytes& object : objects) {
    if (RestoreBlock(context, object)) continue;
    fetch_->Abandon();
    EndRestore(context, now);
    return true;
  }
  if (!objects.empty()) return true;
  if (!ended) return false;
  EndRestore(context, now);
  return true;
}

bool Request::RestoreBlock(const RequestContext& context, const ObjectBytes& object) {
  uint32_t length = sequence_->length();
  absl::Status status = sequence_->Restore(Prompt().subspan(length, kBlockTokens), object);
  if (status.ok()) return true;
  context.link->Failed(StoreOp::kRestore, status);
  spdlog::warn("a stored block is computed again: {}", status.ToString());
  std::vector<Digest> keys = BlockKeys(RootKey(context.engine.info().fingerprint, spec_.salt),
                                       Prompt().first(length + kBlockTokens));
  context.offloader->Remove(spec_.tenant, keys.back());
  return false;
}

void Request::EndRestore(const RequestContext& context, Clock::time_point now) {
  fetch_.reset();
  state_ = State::kPrefilling;
  usage_.cached_tokens = sequence_->length();
  usage_.restore = Micros(Clock::now() - started_);
  if (usage_.cached_tokens == 0) return;
  context.metrics.cached_tokens.Increment(usage_.cached_tokens);
  context.metrics.restore_seconds.Observe(Seconds(Clock::now() - started_));
}

uint32_t Request::NextChunk(const RequestContext& context) const {
  uint32_t at = sequence_->length();
  uint32_t end = std::min((at / context.chunk_tokens + 1) * context.chunk_tokens, usage_.prompt_tokens);
  return end - at;
}

void Request::StepPrefill(const RequestContext& context) {
  uint32_t at = sequence_->length(), count = NextChunk(context);
  Compute(context, Prompt().subspan(at, count), at + count == usage_.prompt_tokens);
}

void Request::StepDecode(const RequestContext& context) {
  Compute(context, std::span(&last_token_, 1), true);
}

void Request::Compute(const RequestContext& context, std::span<const uint32_t> tokens, bool sample) {
  absl::StatusOr<std::vector<float>> logits = context.engine.Forward(*sequence_, tokens);
  if (!logits.ok()) return End(context, Finish::kFailed, logits.status());
  OfferBlocks(context, /*last=*/false);
  if (sample) Sample(context, *logits);
}

void Request::Sample(const RequestContext& context, std::span<float> logits) {
  if (logits.size() != context.engine.info().vocabulary) {
    return End(
        context, Finish::kFailed,
        absl::InternalError(absl::StrCat("the model gave ", logits.size(), " logits, its vocabulary has ",
                                         context.engine.info().vocabulary)));
  }
  // Sampling changes the logits, and log-probabilities are the model's own.
  std::vector<float> raw;
  if (spec_.top_logprobs >= 0) raw.assign(logits.begin(), logits.end());
  absl::StatusOr<uint32_t> token = sampler_.Sample(logits);
  if (!token.ok()) return End(context, Finish::kFailed, token.status());
  state_ = State::kDecoding;
  last_token_ = *token;
  sampler_.ObserveOutput(*token);
  CountToken(context);
  if (end_tokens_.contains(*token)) return End(context, Finish::kStop);

  Output piece;
  piece.tokens = {*token};
  if (!raw.empty())
    piece.logprobs.push_back(LogProbability(raw, *token, static_cast<uint32_t>(spec_.top_logprobs)));
  piece.text = stops_.Push(decoder_->Push(*token));
  generation_->Push(std::move(piece));
  if (stops_.matched()) return End(context, Finish::kStop);
  if (usage_.completion_tokens >= max_tokens_) End(context, Finish::kLength);
}

void Request::CountToken(const RequestContext& context) {
  auto now = Clock::now();
  if (usage_.completion_tokens == 0) {
    usage_.prefill = Micros(now - started_);
    context.metrics.ttft_seconds.Observe(Seconds(now - arrived_));
  } else {
    context.metrics.inter_token_seconds.Observe(Seconds(now - last_token_at_));
  }
  last_token_at_ = now;
  ++usage_.completion_tokens;
  context.metrics.completion_tokens.Increment();
}

void Request::OfferBlocks(const RequestContext& context, bool last) {
  if (context.offloader == nullptr || spec_.cache != CacheUse::kReadWrite) return;
  std::span<const SealedBlock> blocks =
      sequence_ == nullptr ? std::span<const SealedBlock>() : sequence_->blocks();
  if (chain_ == nullptr) {
    if (blocks.size() * kBlockTokens <= usage_.cached_tokens) return;
    chain_ = std::make_shared<OffloadChain>(spec_.tenant, usage_.cached_tokens / kBlockTokens);
  }
  if (!last && blocks.size() == offered_) return;
  offered_ = blocks.size();
  context.offloader->Offer(chain_, blocks, last);
}

void Request::End(const RequestContext& context, Finish finish, const absl::Status& status) {
  if (state_ == State::kEnded) return;
  if (fetch_ != nullptr) fetch_->Abandon();
  Output& piece = last_piece_;
  if (decoder_.has_value()) {
    piece.text = stops_.Push(decoder_->Flush());
    // What is left of a character may be what a stop string was waiting for.
    if (stops_.matched() && finish == Finish::kLength) finish = Finish::kStop;
    piece.text += stops_.Flush();
  }
  piece.finish = finish;
  piece.usage = usage_;
  piece.status = status;
  // After a failure the sequence is not to be looked at any more.
  if (finish == Finish::kFailed) sequence_.reset();
  OfferBlocks(context, /*last=*/true);
  context.metrics.requests[static_cast<size_t>(finish)]->Increment();
  state_ = State::kEnded;
  sequence_.reset();
  fetch_.reset();
  chain_.reset();
}

}  // namespace quire::worker

#include "services/worker/server/convert.h"

#include <random>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/worker/server/chat_prompt.h"

namespace quire::worker {
namespace {

uint64_t RandomSeed() {
  static thread_local std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

SamplingParams ToParams(const v1::Sampling& in) {
  SamplingParams out;
  if (in.has_temperature()) out.temperature = in.temperature();
  if (in.has_top_p()) out.top_p = in.top_p();
  if (in.has_top_k()) out.top_k = in.top_k();
  if (in.has_min_p()) out.min_p = in.min_p();
  if (in.has_repetition_penalty()) out.repetition_penalty = in.repetition_penalty();
  if (in.has_frequency_penalty()) out.frequency_penalty = in.frequency_penalty();
  if (in.has_presence_penalty()) out.presence_penalty = in.presence_penalty();
  out.seed = in.has_seed() ? in.seed() : RandomSeed();
  out.logit_bias.assign(in.logit_bias().begin(), in.logit_bias().end());
  return out;
}

absl::StatusOr<std::vector<uint32_t>> ToPrompt(const Engine& engine, const v1::GenerateRequest& request) {
  switch (request.prompt_case()) {
    case v1::GenerateRequest::kTokens:
      return std::vector<uint32_t>(request.tokens().ids().begin(), request.tokens().ids().end());
    case v1::GenerateRequest::kText:
      return engine.tokenizer()->Encode(request.text(), /*parse_special=*/true, /*add_special=*/true);
    case v1::GenerateRequest::kChat: {
      QUIRE_ASSIGN_OR_RETURN(ChatPrompt chat, RenderChat(engine, request.chat()));
      return std::move(chat.tokens);
    }
    case v1::GenerateRequest::PROMPT_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("prompt is missing: set tokens, text or chat");
}

void AddLogprob(const Tokenizer& tokenizer, uint32_t token, float logprob, v1::TokenLogprobs* out) {
  out->set_token(token);
  out->set_logprob(logprob);
  out->set_text(std::string(tokenizer.TokenBytes(token)));
}

void SetUsage(const Usage& in, v1::Usage* out) {
  out->set_prompt_tokens(in.prompt_tokens);
  out->set_completion_tokens(in.completion_tokens);
  out->set_cached_tokens(in.cached_tokens);
  out->set_queue_us(in.queue.count());
  out->set_prefill_us(in.prefill.count());
  out->set_restore_us(in.restore.count());
}

}  // namespace

absl::StatusOr<GenerateSpec> ToSpec(const Engine& engine, const v1::GenerateRequest& request) {
  if (!v1::CacheUse_IsValid(request.cache())) {
    return absl::InvalidArgumentError(absl::StrCat("cache is ", request.cache(), ", which is no CacheUse"));
  }
  GenerateSpec spec;
  spec.id = request.request_id();
  QUIRE_ASSIGN_OR_RETURN(spec.prompt, ToPrompt(engine, request));
  spec.sampling = ToParams(request.sampling());
  spec.max_tokens = request.max_tokens();
  spec.stop.assign(request.stop().begin(), request.stop().end());
  spec.stop_tokens.assign(request.stop_tokens().begin(), request.stop_tokens().end());
  spec.ignore_eos = request.ignore_eos();
  spec.tenant = request.tenant();
  spec.salt = request.salt();
  if (request.has_top_logprobs()) spec.top_logprobs = request.top_logprobs();
  spec.cache = static_cast<CacheUse>(request.cache());
  return spec;
}

void AddOutput(const Tokenizer& tokenizer, const Output& output, v1::GenerateResponse* response) {
  response->set_text(output.text);
  response->mutable_tokens()->Add(output.tokens.begin(), output.tokens.end());
  for (const TokenLogprob& in : output.logprobs) {
    v1::TokenLogprobs* out = response->add_logprobs();
    AddLogprob(tokenizer, in.token, in.logprob, out);
    for (const auto& [token, logprob] : in.top) AddLogprob(tokenizer, token, logprob, out->add_top());
  }
  if (output.finish == Finish::kNone) return;
  response->set_finish(static_cast<v1::FinishReason>(output.finish));
  SetUsage(output.usage, response->mutable_usage());
}

}  // namespace quire::worker

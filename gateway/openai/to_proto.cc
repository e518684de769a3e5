#include "gateway/openai/to_proto.h"

#include <limits>

#include "absl/strings/str_cat.h"

namespace quire::gateway {
namespace {

void SetSampling(const SharedRequest& request, v1::Sampling* out) {
  if (request.temperature) out->set_temperature(*request.temperature);
  // 0 means that only the likeliest token is left; the worker wants more than 0 and does the same for the
  // smallest.
  if (request.top_p) out->set_top_p(std::max(*request.top_p, std::numeric_limits<float>::min()));
  if (request.top_k) out->set_top_k(*request.top_k);
  if (request.min_p) out->set_min_p(*request.min_p);
  if (request.repetition_penalty) out->set_repetition_penalty(*request.repetition_penalty);
  if (request.frequency_penalty) out->set_frequency_penalty(*request.frequency_penalty);
  if (request.presence_penalty) out->set_presence_penalty(*request.presence_penalty);
  if (request.seed) out->set_seed(*request.seed);
  for (const auto& [token, bias] : request.logit_bias) (*out->mutable_logit_bias())[token] = bias;
}

v1::CacheUse ToCacheUse(CachePolicy policy) {
  switch (policy) {
    case CachePolicy::kReadOnly:
      return v1::CACHE_READ_ONLY;
    case CachePolicy::kBypass:
      return v1::CACHE_BYPASS;
    case CachePolicy::kUse:
      break;
  }
  return v1::CACHE_READ_WRITE;
}

Problem CheckToken(uint32_t token, const ModelLimits& limits, const std::string& param) {
  if (limits.vocabulary == 0 || token < limits.vocabulary) return std::nullopt;
  return InvalidValue(absl::StrCat("Invalid '", param, "': token id ", token,
                                   " is outside the model's vocabulary of ", limits.vocabulary, " tokens."),
                      param, "invalid_value");
}

Problem SetShared(const SharedRequest& request, const ModelLimits& limits, v1::GenerateRequest* out) {
  for (const auto& [token, bias] : request.logit_bias) {
    if (Problem problem = CheckToken(token, limits, "logit_bias")) return problem;
  }
  for (uint32_t token : request.stop_token_ids) {
    if (Problem problem = CheckToken(token, limits, "stop_token_ids")) return problem;
  }
  SetSampling(request, out->mutable_sampling());
  out->set_max_tokens(request.max_tokens.value_or(0));
  for (const auto& stop : request.stop) out->add_stop(stop);
  out->mutable_stop_tokens()->Add(request.stop_token_ids.begin(), request.stop_token_ids.end());
  out->set_ignore_eos(request.ignore_eos);
  if (request.logprobs) out->set_top_logprobs(static_cast<int32_t>(*request.logprobs));
  out->set_cache(ToCacheUse(request.cache));
  return std::nullopt;
}

}  // namespace

Problem ToGenerate(const ChatRequest& request, const ModelLimits& limits, v1::GenerateRequest* out) {
  if (!limits.has_chat_template) {
    return ApiError{
        .message = absl::StrCat("The model `", request.model, "` has no chat template; use /v1/completions."),
        .param = "model"};
  }
  if (Problem problem = SetShared(request, limits, out)) return problem;
  v1::RenderChatRequest* chat = out->mutable_chat();
  for (const Message& message : request.messages) {
    v1::ChatMessage* to = chat->add_messages();
    to->set_role(message.role);
    to->set_content(message.content);
    to->set_name(message.name);
  }
  chat->set_add_generation_prompt(request.add_generation_prompt);
  chat->set_variables_json(request.template_variables);
  return std::nullopt;
}

Problem ToGenerate(const CompletionRequest& request, const ModelLimits& limits, v1::GenerateRequest* out) {
  if (Problem problem = SetShared(request, limits, out)) return problem;
  if (const auto* text = std::get_if<std::string>(&request.prompt)) {
    out->set_text(*text);
    return std::nullopt;
  }
  const auto& tokens = std::get<std::vector<uint32_t>>(request.prompt);
  for (uint32_t token : tokens) {
    if (Problem problem = CheckToken(token, limits, "prompt")) return problem;
  }
  const uint64_t wanted = tokens.size() + uint64_t{request.max_tokens.value_or(1)};
  if (limits.context_tokens > 0 && wanted > limits.context_tokens) {
    return InvalidValue(
        absl::StrCat("This model's maximum context length is ", limits.context_tokens,
                     " tokens, however you requested ", wanted, " tokens (", tokens.size(),
                     " in your prompt; ", request.max_tokens.value_or(1),
                     " for the completion). Please reduce your prompt; or completion length."),
        "prompt", "context_length_exceeded");
  }
  out->mutable_tokens()->mutable_ids()->Add(tokens.begin(), tokens.end());
  return std::nullopt;
}

}  // namespace quire::gateway

// The requests of POST /v1/chat/completions and /v1/completions, read and checked.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "gateway/openai/error.h"

namespace quire::gateway {

enum class CachePolicy { kUse, kReadOnly, kBypass };

// What both endpoints take. Absent sampling fields leave the choice to the worker.
struct SharedRequest {
  std::string model;
  std::optional<float> temperature;         // 0…2
  std::optional<float> top_p;               // 0…1
  std::optional<float> min_p;               // 0…1
  std::optional<float> presence_penalty;    // −2…2
  std::optional<float> frequency_penalty;   // −2…2
  std::optional<float> repetition_penalty;  // > 0
  std::optional<uint32_t> top_k;            // 0: off
  std::optional<uint64_t> seed;
  std::vector<std::pair<uint32_t, float>> logit_bias;  // token id, −100…100; at most 1024
  std::optional<uint32_t> max_tokens;
  std::vector<std::string> stop;  // at most 16, none empty
  std::vector<uint32_t> stop_token_ids;
  bool ignore_eos = false;
  bool stream = false;
  bool include_usage = false;
  std::optional<uint32_t> logprobs;  // so many best tokens beside the sampled one; absent: none
  std::string user;
  std::string cache_salt;  // empty: none
  CachePolicy cache = CachePolicy::kUse;
};

struct Message {
  std::string role, content, name;
};

struct ChatRequest : SharedRequest {
  std::vector<Message> messages;  // at least one
  bool add_generation_prompt = true;
  std::string template_variables;  // a JSON object, or empty

  // Set while reading, folded into the fields above at the end.
  std::optional<uint32_t> max_completion_tokens;
  bool wants_logprobs = false;
  std::optional<uint32_t> top_logprobs;
};

struct CompletionRequest : SharedRequest {
  std::variant<std::string, std::vector<uint32_t>> prompt;  // text or token ids
};

// REQUIRES: *out is as constructed. Where a problem comes back, *out holds nothing to rely on.
Problem ReadChatRequest(std::string_view body, ChatRequest* out);
Problem ReadCompletionRequest(std::string_view body, CompletionRequest* out);

}  // namespace quire::gateway

// A checked request as the worker takes it. Tenant, salt and request id are the caller's to add.
#pragma once

#include "gateway/openai/requests.h"
#include "quire/v1/inference.pb.h"

namespace quire::gateway {

// What a model's limits say about a request, before a worker is asked.
struct ModelLimits {
  uint32_t context_tokens = 0;
  uint32_t vocabulary = 0;
  bool has_chat_template = false;
};

Problem ToGenerate(const ChatRequest& request, const ModelLimits& limits, v1::GenerateRequest* out);
Problem ToGenerate(const CompletionRequest& request, const ModelLimits& limits, v1::GenerateRequest* out);

}  // namespace quire::gateway

// A chat as the model reads it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "quire/v1/inference.pb.h"
#include "services/worker/engine/engine.h"

namespace quire::worker {

struct ChatPrompt {
  std::string text;
  std::vector<uint32_t> tokens;
};

// Applies the model's chat template. The template writes the special tokens itself, so none is added.
// INVALID_ARGUMENT naming the field that is wrong, or with the template's own message; FAILED_PRECONDITION if
// the model has no template.
absl::StatusOr<ChatPrompt> RenderChat(const Engine& engine, const v1::RenderChatRequest& request);

}  // namespace quire::worker

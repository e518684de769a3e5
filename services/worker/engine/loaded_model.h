// A model file made ready to run: what the engine and the evaluator have in common.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/worker/engine/engine.h"
#include "services/worker/engine/kv_sequence.h"
#include "services/worker/engine/language_model.h"

namespace quire::worker {

// Chunks end at multiples of this position, however the tokens were handed over, so that a prefix is computed
// in the same pieces again.
inline constexpr uint32_t kChunkTokens = 512;

struct LoadOptions {
  std::string path;
  int threads = 0;            // 0: all cores
  uint32_t max_context = 0;   // tokens; 0: the model's own
  uint32_t query_tokens = 0;  // of the sample text run to learn how the model's queries look; 0: not
};

struct LoadedModel {
  ModelInfo info;
  std::shared_ptr<const BlockCodec> codec;  // of the whole model
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const ChatTemplate> chat_template;  // null if the file has none
  std::unique_ptr<LanguageModel> model;
  std::shared_ptr<const QueryShapes> shapes;  // null: not learned

  // See EngineOptions. Torch's exceptions become INTERNAL.
  static absl::StatusOr<LoadedModel> Load(const LoadOptions& options, const LoadProgress& progress);

  std::unique_ptr<KvSequence> NewSequence(const Digest& root, const CodecSpec& spec,
                                          KvSequence::Mode mode) const;
  // Runs tokens behind what kv holds, chunk by chunk; `visit` gets each chunk's hidden states [n, hidden].
  // Checks all tokens first.
  absl::Status Run(KvSequence& kv, std::span<const uint32_t> tokens,
                   absl::FunctionRef<void(const at::Tensor&)> visit) const;
};

// Calls body under inference mode and turns what it throws into INTERNAL (RESOURCE_EXHAUSTED for want of
// memory).
absl::Status CatchTorch(absl::FunctionRef<absl::Status()> body);

}  // namespace quire::worker

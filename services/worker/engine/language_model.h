// A decoder-only language model on LibTorch tensors; one implementation a family (llama.cc, gemma3.cc).
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "core/block/object.h"
#include "core/model/decoder_config.h"
#include "core/model/gguf.h"
#include "services/worker/engine/kv_sequence.h"
#include "services/worker/engine/query_moments.h"

namespace quire::worker {

// Weights are immutable, but a model has scratch: one call at a time. Torch's exceptions pass through.
class LanguageModel {
 public:
  virtual ~LanguageModel() = default;
  // Runs `tokens`, which `kv` has reserved at [kv.length(), kv.reserved_end()), and writes their K and V
  // there. Returns the normalised hidden states, fp32 [tokens, hidden]. Memory grows with tokens × (context +
  // intermediate): callers bound tokens.
  virtual absl::StatusOr<at::Tensor> Forward(std::span<const uint32_t> tokens, KvSequence& kv) = 0;
  // From now on Forward adds its queries to `moments`; null: no longer.
  virtual void ObserveQueries(QueryMoments* moments) = 0;
  // fp32 [n, hidden] → [n, vocabulary].
  virtual at::Tensor Logits(const at::Tensor& hidden) const = 0;
};

// Fraction of the weights read so far, 0…1; called from several threads, one at a time.
using WeightsProgress = std::function<void(double)>;

// Each expands all weights of its family to fp32. `codec` is of config.KvLayout. INVALID_ARGUMENT naming a
// tensor that is missing or has the wrong shape.
absl::StatusOr<std::unique_ptr<LanguageModel>> LoadLlama(const GgufFile& file, const DecoderConfig& config,
                                                         std::shared_ptr<const BlockCodec> codec,
                                                         const WeightsProgress& progress);
absl::StatusOr<std::unique_ptr<LanguageModel>> LoadGemma3(const GgufFile& file, const DecoderConfig& config,
                                                          std::shared_ptr<const BlockCodec> codec,
                                                          const WeightsProgress& progress);

}  // namespace quire::worker

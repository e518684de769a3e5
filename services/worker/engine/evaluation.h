// What quire-eval and the tests need of a model beyond Engine: logits of every position, and how far codes
// move them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/codec/spec.h"
#include "services/worker/engine/engine.h"

namespace quire::worker {

// Σ‖x‖² and Σ‖x − x̂‖² over all heads of a layer and all tokens of the prefix but the sinks.
struct StreamError {
  double energy = 0, error = 0;
};

// One text under one codec, teacher-forced. Entry i belongs to the i-th scored token's output distribution.
struct TextFidelity {
  std::vector<double> kl{};              // KL(uncoded ‖ coded), nats
  std::vector<bool> same_top{};          // both rank the same token first
  std::vector<double> nll_difference{};  // −log p of the token that follows, coded − uncoded; one short if
                                         // none follows the last
  uint64_t object_bytes = 0;  // of the prefix as coded: headers, checksums, padding and sinks included
  std::vector<StreamError> k_error{}, v_error{};  // [layer], of what was decoded against the uncoded prefix
};

// Replaces 64 vectors [64][d] of one layer's and head's K or V by what a codec makes of them.
using BlockTransform = absl::FunctionRef<void(std::span<float> rows)>;

// One call at a time.
class Evaluator {
 public:
  virtual ~Evaluator() = default;
  // See EngineOptions.
  static absl::StatusOr<std::unique_ptr<Evaluator>> Load(const std::string& model_path, int threads,
                                                         uint32_t query_tokens, const LoadProgress& progress);

  virtual const ModelInfo& info() const = 0;
  virtual const Layout& layout() const = 0;
  virtual std::shared_ptr<const Tokenizer> tokenizer() const = 0;

  // Runs tokens; visit(position, logits [vocabulary]) for each, in order. With a codec as the engine serves
  // it (KV rounded to the layout's dtype, blocks coded behind the window), else on fp32 KV.
  virtual absl::Status ForEachPosition(std::span<const uint32_t> tokens,
                                       const std::optional<CodecSpec>& codec,
                                       absl::FunctionRef<void(size_t, std::span<const float>)> visit) = 0;

  // Takes a text: runs its first `prefix` tokens and the `score` after them on uncoded fp32 KV and keeps what
  // Measure compares with. `tokens` may hold one more, which only the last scored position's likelihood uses.
  // INVALID_ARGUMENT unless prefix is a multiple of 64 above 0, score above 0, and 0 or 1 tokens are left
  // over.
  virtual absl::Status SetText(std::span<const uint32_t> tokens, uint32_t prefix, uint32_t score) = 0;
  // Codes the text's prefix (sinks raw), keeps the first `levels` levels of its objects (0: all), and runs
  // the scored tokens again; their own KV stays raw. REQUIRES: SetText succeeded.
  virtual absl::StatusOr<TextFidelity> Measure(const CodecSpec& spec, int levels) = 0;
  // The same for a codec that makes no objects: the prefix's K and V are handed to `transform` block by
  // block, from several threads at once, and used as it leaves them, in fp32; sinks stay raw. object_bytes is
  // left 0.
  virtual absl::StatusOr<TextFidelity> MeasureTransformed(BlockTransform transform) = 0;
};

}  // namespace quire::worker

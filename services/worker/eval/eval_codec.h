// A codec as quire-eval takes it on its command line.
//
//   tq:k4v4, fp8, raw …    what blocks are stored as (core/codec/spec.h)
//   tq:k4v4@3              the same, read at 3 bits: the levels above are dropped
//   q4_0, turboquant:4 …   a baseline (services/worker/eval/baseline.h)
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "services/worker/engine/evaluation.h"
#include "services/worker/eval/baseline.h"
#include "services/worker/eval/code_bits.h"

namespace quire::worker {

class EvalCodec {
 public:
  // INVALID_ARGUMENT naming the mistake, also for a layer that the layout doesn't have.
  static absl::StatusOr<EvalCodec> Parse(std::string_view text, const Layout& layout);

  // The canonical spec and what is read of it: one name, one result.
  const std::string& name() const { return name_; }
  CodeBits bits() const { return bits_; }
  // See Evaluator::SetText. Fills object_bytes for baselines too, whose sinks count as raw.
  absl::StatusOr<TextFidelity> Measure(Evaluator& evaluator, uint32_t prefix) const;

 private:
  std::string name_;
  CodeBits bits_;
  CodecSpec spec_;
  int levels_ = 0;                            // 0: all
  std::shared_ptr<const Baseline> baseline_;  // if set, spec_ means nothing
};

absl::StatusOr<std::vector<EvalCodec>> ParseCodecs(const std::vector<std::string>& texts,
                                                   const Layout& layout);

}  // namespace quire::worker

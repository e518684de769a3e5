// Measures codecs on texts, text by text, and leaves out what a journal has already.
#pragma once

#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/worker/eval/eval_codec.h"
#include "services/worker/eval/eval_text.h"
#include "services/worker/eval/fidelity.h"
#include "services/worker/eval/journal.h"
#include "services/worker/eval/progress.h"

namespace quire::worker {

class FidelityRun {
 public:
  // Borrows evaluator, journal and progress. REQUIRES: texts of at least prefix + score tokens.
  FidelityRun(Evaluator& evaluator, Journal& journal, Progress& progress, std::vector<EvalText> texts,
              uint32_t prefix, uint32_t score);

  // Counts work that will come, so that the progress shown is that of the whole run: `codecs` that are on the
  // first `texts` texts. A call of Measure counts nothing by itself.
  void Expect(std::span<const EvalCodec> codecs, size_t texts);
  // Work of codecs that aren't known yet, on all texts.
  void ExpectUnknown(size_t codecs);

  // What codecs do to the first `texts` texts: one report a codec, in their order.
  absl::StatusOr<std::vector<FidelityReport>> Measure(std::span<const EvalCodec> codecs, size_t texts);

  size_t texts() const { return texts_.size(); }
  const Layout& layout() const { return evaluator_.layout(); }

 private:
  static constexpr size_t kNone = static_cast<size_t>(-1);
  MeasurementKey KeyOf(size_t text, const EvalCodec& codec) const;
  absl::Status MeasureText(std::span<const EvalCodec> codecs, size_t text);

  Evaluator& evaluator_;
  Journal& journal_;
  Progress& progress_;
  const std::vector<EvalText> texts_;
  const uint32_t prefix_, score_;
  WorkEstimate estimate_;
  size_t current_ = kNone;  // the text that the evaluator holds
};

}  // namespace quire::worker

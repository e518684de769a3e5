// What quire-eval reports of one codec over all texts.
#pragma once

#include <string>
#include <vector>

#include "services/worker/engine/evaluation.h"
#include "services/worker/eval/code_bits.h"

namespace quire::worker {

struct FidelityReport {
  std::string codec;  // EvalCodec's name
  std::string label;  // for people, where the codec's name is too long; else empty
  CodeBits bits;
  double object_bits = 0;  // an element, of whole objects: headers, checksums, padding and sinks too
  double kl_mean = 0, kl_median = 0, kl_p99 = 0;  // nats, over all scored tokens of all texts
  double top1 = 0;                                // fraction
  double ppl_change = 0;                          // fraction
  std::vector<double> k_error, v_error;  // [layer] Σ‖x−x̂‖²/Σ‖x‖² over all texts, without sinks
  std::vector<double> text_kl;           // [text] mean KL
  size_t texts = 0, scored = 0;

  const std::string& Label() const { return label.empty() ? codec : label; }
  std::string Json() const;
};

// REQUIRES: texts is not empty. `prefix_elements`: K and V elements of one text's prefix.
FidelityReport Summarize(const std::vector<TextFidelity>& texts, uint64_t prefix_elements);

// Rows with a heading, for people. K and V error: the mean over layers / the worst layer's.
std::string Table(const std::vector<FidelityReport>& reports);

}  // namespace quire::worker

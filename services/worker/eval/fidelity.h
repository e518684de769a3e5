// What quire-eval reports of one codec over all texts, and how many bits that codec takes.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/block/layout.h"
#include "core/codec/spec.h"
#include "services/worker/engine/evaluation.h"

namespace quire::worker {

// Bits an element of K and of V, the mean over layers, at the levels that are read: indices and everything
// the levels hold beside them (scales and their corrections, K's block mean). Sinks, headers, checksums and
// padding are not in it.
struct CodeBits {
  double k = 0, v = 0;
};
// levels: 0 means all.
absl::StatusOr<CodeBits> BitsOf(const Layout& layout, const CodecSpec& spec, int levels);

// How many levels of an object coded with `spec` make `keep_bits` bits: a layer of fewer bits keeps what it
// has. INVALID_ARGUMENT where no level of some layer ends there.
absl::StatusOr<int> LevelsFor(const Layout& layout, const CodecSpec& spec, int keep_bits);

struct FidelityReport {
  std::string codec;  // the canonical spec
  int keep_bits = 0;  // 0: all
  CodeBits bits;
  double object_bits = 0;  // an element, of whole objects: headers, checksums, padding and sinks too
  double kl_mean = 0, kl_median = 0, kl_p99 = 0;  // nats, over all scored tokens of all texts
  double top1 = 0;                                // fraction
  double ppl_change = 0;                          // fraction
  size_t texts = 0, scored = 0;

  std::string Json() const;
};

// REQUIRES: texts is not empty. `prefix_elements`: K and V elements of one text's prefix.
FidelityReport Summarize(const std::vector<TextFidelity>& texts, uint64_t prefix_elements);

// Rows with a heading, for people.
std::string Table(const std::vector<FidelityReport>& reports);

}  // namespace quire::worker

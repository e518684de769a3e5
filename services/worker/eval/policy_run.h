// The policy search on a model: measures the prices and takes what they lead to (policy_search.h).
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/worker/eval/eval_codec.h"
#include "services/worker/eval/fidelity_run.h"

namespace quire::worker {

struct PolicySearch {
  double budget = 0;               // bits an element
  std::vector<EvalCodec> probes;   // what the prices are measured with
  std::vector<EvalCodec> uniform;  // one or two specs of equal bits in all layers, to compare with
};

// INVALID_ARGUMENT if budget is malformed (ParseBudget) or below what 2 bits everywhere take.
absl::StatusOr<PolicySearch> PlanPolicySearch(const std::string& budget, const Layout& layout);

// Measures the prices on the first `price_texts` texts of run and gives the spec that they lead to.
absl::StatusOr<EvalCodec> FindPolicy(const PolicySearch& search, size_t price_texts, FidelityRun& run);

}  // namespace quire::worker

#include "services/worker/eval/policy_run.h"

#include "core/base/status_macros.h"
#include "services/worker/eval/policy_search.h"

namespace quire::worker {

absl::StatusOr<PolicySearch> PlanPolicySearch(const std::string& budget, const Layout& layout) {
  PolicySearch search;
  QUIRE_ASSIGN_OR_RETURN(search.budget, ParseBudget(budget, layout));
  QUIRE_ASSIGN_OR_RETURN(search.probes, ParseCodecs(PriceProbes(layout), layout));
  QUIRE_ASSIGN_OR_RETURN(const UniformSpecs around, UniformSpecsAround(layout, search.budget));
  if (!around.below.has_value()) {  // says what the least is
    const Prices free(layout, std::vector<double>(search.probes.size()));
    return CheapestPolicy(layout, free, search.budget).status();
  }
  std::vector<std::string> uniform{around.below->ToString()};
  if (around.above.has_value() && *around.above != *around.below) uniform.push_back(around.above->ToString());
  QUIRE_ASSIGN_OR_RETURN(search.uniform, ParseCodecs(uniform, layout));
  return search;
}

absl::StatusOr<EvalCodec> FindPolicy(const PolicySearch& search, size_t price_texts, FidelityRun& run) {
  QUIRE_ASSIGN_OR_RETURN(const std::vector<FidelityReport> reports, run.Measure(search.probes, price_texts));
  std::vector<double> kl;
  for (const FidelityReport& report : reports) kl.push_back(report.kl_mean);
  QUIRE_ASSIGN_OR_RETURN(const Policy policy,
                         CheapestPolicy(run.layout(), Prices(run.layout(), kl), search.budget));
  QUIRE_ASSIGN_OR_RETURN(const CodecSpec spec, SpecOf(policy));
  return EvalCodec::Parse(spec.ToString(), run.layout());
}

}  // namespace quire::worker

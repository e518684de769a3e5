#include "services/worker/eval/fidelity.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace quire::worker {
namespace {

// Linear between neighbours. Sorts values.
double Quantile(std::vector<double>& values, double q) {
  std::sort(values.begin(), values.end());
  const double at = q * static_cast<double>(values.size() - 1);
  const size_t below = static_cast<size_t>(at), above = std::min(below + 1, values.size() - 1);
  return values[below] + (values[above] - values[below]) * (at - static_cast<double>(below));
}

double Mean(const std::vector<double>& values) {
  return values.empty()
             ? 0
             : std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double Worst(const std::vector<double>& values) {
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

// Layer by layer, weighted by energy over the texts.
std::vector<double> RelativeErrors(const std::vector<TextFidelity>& texts,
                                   std::vector<StreamError> TextFidelity::*stream) {
  std::vector<double> relative((texts.front().*stream).size());
  for (size_t layer = 0; layer < relative.size(); ++layer) {
    double energy = 0, error = 0;
    for (const TextFidelity& text : texts) {
      energy += (text.*stream)[layer].energy;
      error += (text.*stream)[layer].error;
    }
    relative[layer] = energy > 0 ? error / energy : 0;
  }
  return relative;
}

std::string ErrorCell(const std::vector<double>& errors) {
  return absl::StrFormat("%.1e/%.1e", Mean(errors), Worst(errors));
}

}  // namespace

FidelityReport Summarize(const std::vector<TextFidelity>& texts, uint64_t prefix_elements) {
  FidelityReport report;
  std::vector<double> kl, nll;
  size_t same = 0;
  double bytes = 0;
  for (const TextFidelity& text : texts) {
    kl.insert(kl.end(), text.kl.begin(), text.kl.end());
    nll.insert(nll.end(), text.nll_difference.begin(), text.nll_difference.end());
    same += static_cast<size_t>(std::count(text.same_top.begin(), text.same_top.end(), true));
    bytes += static_cast<double>(text.object_bytes);
    report.text_kl.push_back(Mean(text.kl));
  }
  report.texts = texts.size();
  report.scored = kl.size();
  report.object_bits = 8 * bytes / (static_cast<double>(prefix_elements) * static_cast<double>(texts.size()));
  report.kl_mean = Mean(kl);
  report.kl_median = Quantile(kl, 0.5);
  report.kl_p99 = Quantile(kl, 0.99);
  report.top1 = static_cast<double>(same) / static_cast<double>(kl.size());
  report.ppl_change = std::expm1(Mean(nll));
  report.k_error = RelativeErrors(texts, &TextFidelity::k_error);
  report.v_error = RelativeErrors(texts, &TextFidelity::v_error);
  return report;
}

std::string FidelityReport::Json() const {
  const nlohmann::ordered_json json = {
      {"codec", codec},     {"bits_k", bits.k},         {"bits_v", bits.v},
      {"kl_mean", kl_mean}, {"kl_median", kl_median},   {"kl_p99", kl_p99},
      {"top1", top1},       {"ppl_change", ppl_change}, {"object_bits", object_bits},
      {"k_error", k_error}, {"v_error", v_error},       {"text_kl_mean", text_kl},
      {"texts", texts},     {"scored_tokens", scored}};
  return json.dump();
}

std::string Table(const std::vector<FidelityReport>& reports) {
  size_t width = 5;
  for (const FidelityReport& r : reports) width = std::max(width, r.Label().size());
  const int w = static_cast<int>(width);
  std::string out =
      absl::StrFormat("%-*s  %11s  %6s  %9s  %9s  %9s  %7s  %7s  %15s  %15s\n", w, "codec", "K/V bits",
                      "object", "KL mean", "KL median", "KL 99 %", "top-1 %", "PPL %", "K error", "V error");
  for (const FidelityReport& r : reports) {
    absl::StrAppendFormat(&out, "%-*s  %5.2f/%-5.2f  %6.2f  %9.3e  %9.3e  %9.3e  %7.2f  %+7.3f  %15s  %15s\n",
                          w, r.Label(), r.bits.k, r.bits.v, r.object_bits, r.kl_mean, r.kl_median, r.kl_p99,
                          100 * r.top1, 100 * r.ppl_change, ErrorCell(r.k_error), ErrorCell(r.v_error));
  }
  return out;
}

}  // namespace quire::worker

#include "services/worker/scheduler/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/worker/scheduler/philox.h"

namespace quire::worker {
namespace {

constexpr size_t kMaxLogitBias = 1024;

absl::Status CheckRange(const char* field, float value, bool inside, const char* range) {
  if (inside && std::isfinite(value)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("sampling.", field, " is ", value, ", must be ", range));
}

struct Ranked {
  float logit;
  uint32_t token;
};
// Best first; equal logits by token id.
bool Better(const Ranked& a, const Ranked& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

// The best logit's index; INTERNAL if there is none.
absl::StatusOr<uint32_t> Best(std::span<const float> logits) {
  float best = -std::numeric_limits<float>::infinity();
  uint32_t at = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == std::numeric_limits<float>::infinity()) {
      return absl::InternalError(absl::StrCat("the model's logit of token ", i, " is ", logits[i]));
    }
    if (logits[i] > best) {
      best = logits[i];
      at = static_cast<uint32_t>(i);
    }
  }
  if (std::isinf(best)) return absl::InternalError("no token has a finite logit");
  return at;
}

// The leading `count` tokens, ranked.
std::vector<Ranked> TopK(std::span<const float> logits, size_t count) {
  std::vector<Ranked> all(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) all[i] = {logits[i], static_cast<uint32_t>(i)};
  std::partial_sort(all.begin(), all.begin() + count, all.end(), Better);
  all.resize(count);
  return all;
}

std::vector<Candidate> Weigh(std::span<const Ranked> ranked, float best, float temperature) {
  std::vector<Candidate> out;
  out.reserve(ranked.size());
  for (const Ranked& r : ranked) {
    double weight = std::exp((static_cast<double>(r.logit) - best) / temperature);
    if (weight > 0) out.push_back({r.token, weight});
  }
  return out;
}

double Total(std::span<const Candidate> candidates) {
  return std::accumulate(candidates.begin(), candidates.end(), 0.0,
                         [](double sum, const Candidate& c) { return sum + c.probability; });
}

// Keeps the smallest set of best candidates that holds at least top_p of the whole. A heap gives the best
// ones without sorting a vocabulary of which most is never looked at.
void KeepTopP(std::vector<Candidate>& candidates, float top_p) {
  auto worse = [](const Candidate& a, const Candidate& b) {
    return a.probability != b.probability ? a.probability < b.probability : a.token > b.token;
  };
  double wanted = top_p * Total(candidates), sum = 0;
  std::vector<Candidate> kept;
  std::make_heap(candidates.begin(), candidates.end(), worse);
  while (!candidates.empty() && (kept.empty() || sum < wanted)) {
    std::pop_heap(candidates.begin(), candidates.end(), worse);
    sum += candidates.back().probability;
    kept.push_back(candidates.back());
    candidates.pop_back();
  }
  candidates = std::move(kept);
}

}  // namespace

absl::Status SamplingParams::Validate(uint32_t vocabulary) const {
  QUIRE_RETURN_IF_ERROR(CheckRange("temperature", temperature, temperature >= 0, "at least 0"));
  QUIRE_RETURN_IF_ERROR(CheckRange("top_p", top_p, top_p > 0 && top_p <= 1, "above 0 and at most 1"));
  QUIRE_RETURN_IF_ERROR(CheckRange("min_p", min_p, min_p >= 0 && min_p <= 1, "from 0 to 1"));
  QUIRE_RETURN_IF_ERROR(
      CheckRange("repetition_penalty", repetition_penalty, repetition_penalty > 0, "above 0"));
  QUIRE_RETURN_IF_ERROR(CheckRange("frequency_penalty", frequency_penalty,
                                   frequency_penalty >= -2 && frequency_penalty <= 2, "from -2 to 2"));
  QUIRE_RETURN_IF_ERROR(CheckRange("presence_penalty", presence_penalty,
                                   presence_penalty >= -2 && presence_penalty <= 2, "from -2 to 2"));
  if (logit_bias.size() > kMaxLogitBias) {
    return absl::InvalidArgumentError(absl::StrCat("sampling.logit_bias has ", logit_bias.size(),
                                                   " entries, the limit is ", kMaxLogitBias));
  }
  for (const auto& [token, bias] : logit_bias) {
    if (token >= vocabulary) {
      return absl::InvalidArgumentError(
          absl::StrCat("sampling.logit_bias names token ", token, ", the vocabulary has ", vocabulary));
    }
    if (!std::isfinite(bias)) {
      return absl::InvalidArgumentError(
          absl::StrCat("sampling.logit_bias of token ", token, " is ", bias, ", must be finite"));
    }
  }
  return absl::OkStatus();
}

void Sampler::ObservePrompt(std::span<const uint32_t> tokens) {
  if (params_.repetition_penalty != 1) seen_.insert(tokens.begin(), tokens.end());
}

void Sampler::ObserveOutput(uint32_t token) {
  if (params_.repetition_penalty != 1) seen_.insert(token);
  if (params_.frequency_penalty != 0 || params_.presence_penalty != 0) ++output_count_[token];
  ++outputs_;
}

void Sampler::Adjust(std::span<float> logits) const {
  for (uint32_t token : seen_) {
    float& l = logits[token];
    l = l > 0 ? l / params_.repetition_penalty : l * params_.repetition_penalty;
  }
  for (const auto& [token, count] : output_count_) {
    logits[token] -= params_.frequency_penalty * static_cast<float>(count) + params_.presence_penalty;
  }
  for (const auto& [token, bias] : params_.logit_bias) logits[token] += bias;
}

absl::StatusOr<std::vector<Candidate>> Sampler::Distribution(std::span<float> logits) const {
  Adjust(logits);
  QUIRE_ASSIGN_OR_RETURN(uint32_t best, Best(logits));
  if (params_.temperature == 0 || params_.top_k == 1) return std::vector<Candidate>{{best, 1.0}};

  std::vector<Candidate> candidates;
  if (params_.top_k > 0 && params_.top_k < logits.size()) {
    candidates = Weigh(TopK(logits, params_.top_k), logits[best], params_.temperature);
  } else {
    for (size_t i = 0; i < logits.size(); ++i) {
      double weight = std::exp((static_cast<double>(logits[i]) - logits[best]) / params_.temperature);
      if (weight > 0) candidates.push_back({static_cast<uint32_t>(i), weight});
    }
  }
  if (params_.top_p < 1) KeepTopP(candidates, params_.top_p);
  // The best token weighs exactly 1 here.
  if (params_.min_p > 0)
    std::erase_if(candidates, [&](const Candidate& c) { return c.probability < params_.min_p; });
  double total = Total(candidates);
  for (Candidate& c : candidates) c.probability /= total;
  return candidates;
}

absl::StatusOr<uint32_t> Sampler::Sample(std::span<float> logits) const {
  QUIRE_ASSIGN_OR_RETURN(std::vector<Candidate> candidates, Distribution(logits));
  if (candidates.size() == 1) return candidates[0].token;
  double target = UniformAt(params_.seed, outputs_), sum = 0;
  for (const Candidate& c : candidates) {
    sum += c.probability;
    if (target < sum) return c.token;
  }
  return candidates.back().token;  // rounding left the sum a hair below 1
}

TokenLogprob LogProbability(std::span<const float> logits, uint32_t token, uint32_t top) {
  float best = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float l : logits) sum += std::exp(static_cast<double>(l) - best);
  double log_total = best + std::log(sum);
  TokenLogprob out{token, static_cast<float>(logits[token] - log_total), {}};
  if (top == 0) return out;
  for (const Ranked& r : TopK(logits, std::min<size_t>(top, logits.size()))) {
    out.top.emplace_back(r.token, static_cast<float>(r.logit - log_total));
  }
  return out;
}

}  // namespace quire::worker

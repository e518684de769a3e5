// From logits to a token: penalties, biases, truncation and a seeded draw; and log-probabilities of the
// model's own distribution.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace quire::worker {

// Defaults turn everything off but the draw itself.
struct SamplingParams {
  float temperature = 1;         // ≥ 0; 0 = greedy
  float top_p = 1;               // (0, 1]
  uint32_t top_k = 0;            // 0 = off
  float min_p = 0;               // [0, 1]
  float repetition_penalty = 1;  // > 0, over prompt and output
  float frequency_penalty = 0;   // −2…2, over output
  float presence_penalty = 0;    // −2…2, over output
  uint64_t seed = 0;
  std::vector<std::pair<uint32_t, float>> logit_bias;  // token, added to its logit; at most 1024

  // INVALID_ARGUMENT naming the field, the limit and the value.
  absl::Status Validate(uint32_t vocabulary) const;
};

struct Candidate {
  uint32_t token = 0;
  double probability = 0;
};

// The sampling state of one request. Not thread-safe.
//
// Order of operations: repetition penalty (a positive logit is divided, a negative one multiplied), frequency
// and presence penalty, logit_bias, temperature, top_k, top_p (the smallest set of best tokens that holds at
// least top_p of what top_k left), min_p (tokens at least min_p times as probable as the best). Equal logits
// rank by token id, lowest first. The n-th output token is drawn by the n-th number of the seed.
class Sampler {
 public:
  explicit Sampler(SamplingParams params) : params_(std::move(params)) {}

  void ObservePrompt(std::span<const uint32_t> tokens);
  void ObserveOutput(uint32_t token);

  // Chooses the next token; `logits` [vocabulary] is scratch afterwards. Does not observe it. INTERNAL if the
  // logits hold a NaN or +infinity, or nothing but −infinity.
  absl::StatusOr<uint32_t> Sample(std::span<float> logits) const;
  // What Sample draws from: the tokens that are left, with probabilities that sum to 1. One candidate if
  // greedy.
  absl::StatusOr<std::vector<Candidate>> Distribution(std::span<float> logits) const;

 private:
  void Adjust(std::span<float> logits) const;

  SamplingParams params_;
  absl::flat_hash_set<uint32_t> seen_;  // prompt and output, if the repetition penalty needs it
  absl::flat_hash_map<uint32_t, uint32_t> output_count_;  // times each output token appeared
  uint64_t outputs_ = 0;
};

struct TokenLogprob {
  uint32_t token = 0;
  float logprob = 0;
  std::vector<std::pair<uint32_t, float>> top;  // the n best tokens with their log-probabilities, best first
};
// Natural logarithms of softmax(logits), before any penalty, bias or temperature.
TokenLogprob LogProbability(std::span<const float> logits, uint32_t token, uint32_t top);

}  // namespace quire::worker

// A scheduler on a fake engine, and what tests ask of it.
#pragma once

#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/worker/scheduler/scheduler.h"
#include "tests/services/worker/scheduler/fake_engine.h"

namespace quire::worker {

inline constexpr std::chrono::seconds kPatience{60};

struct Result {
  std::string text;
  std::vector<uint32_t> tokens;
  std::vector<TokenLogprob> logprobs;
  Finish finish = Finish::kNone;
  Usage usage;
  absl::Status status;
  std::vector<std::string> pieces;
};

// Reads a generation to its end.
inline Result Collect(Generation& generation) {
  Result out;
  while (out.finish == Finish::kNone) {
    std::optional<Output> piece = generation.Next(kPatience);
    if (!piece.has_value()) {
      ADD_FAILURE() << "no output within a minute";
      return out;
    }
    out.text += piece->text;
    out.pieces.push_back(piece->text);
    out.tokens.insert(out.tokens.end(), piece->tokens.begin(), piece->tokens.end());
    out.logprobs.insert(out.logprobs.end(), piece->logprobs.begin(), piece->logprobs.end());
    out.finish = piece->finish;
    out.usage = piece->usage;
    out.status = piece->status;
  }
  return out;
}

// A prompt of `count` letters that differs with `seed` from the first token on.
inline std::vector<uint32_t> Prompt(size_t count, uint32_t seed = 0) {
  std::vector<uint32_t> out(count);
  for (size_t i = 0; i < count; ++i) out[i] = 'A' + (seed + i * i + i / 26) % 26;
  return out;
}

inline GenerateSpec Greedy(std::vector<uint32_t> prompt, uint32_t max_tokens) {
  GenerateSpec spec;
  spec.prompt = std::move(prompt);
  spec.max_tokens = max_tokens;
  spec.sampling.temperature = 0;
  return spec;
}

class Harness {
 public:
  explicit Harness(std::shared_ptr<store::KvStore> store = nullptr, SchedulerOptions options = {},
                   uint32_t context = 4096)
      : engine(context), store_(std::move(store)), options_(options) {}

  // Starts at the first use, so that a test can set the engine up.
  Scheduler& scheduler() {
    if (scheduler_ == nullptr) {
      auto started = Scheduler::Start(engine, store_, options_, metrics);
      EXPECT_TRUE(started.ok()) << started.status();
      scheduler_ = *std::move(started);
    }
    return *scheduler_;
  }
  std::shared_ptr<Generation> Submit(GenerateSpec spec) {
    auto generation = scheduler().Submit(std::move(spec));
    EXPECT_TRUE(generation.ok()) << generation.status();
    return *generation;
  }
  Result Run(GenerateSpec spec) { return Collect(*Submit(std::move(spec))); }
  void Stop() { scheduler_.reset(); }

  prometheus::Registry registry;
  WorkerMetrics metrics{registry};
  FakeEngine engine;

 private:
  std::shared_ptr<store::KvStore> store_;
  SchedulerOptions options_;
  std::unique_ptr<Scheduler> scheduler_;
};

}  // namespace quire::worker

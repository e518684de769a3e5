#include "services/worker/eval/fidelity_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>

#include "services/worker/eval/policy_run.h"
#include "tests/services/worker/eval/fake_evaluator.h"

namespace quire::worker {
namespace {

constexpr uint32_t kPrefix = 64, kScore = 4;

EvalText Text(uint32_t first) {
  EvalText text{.path = "text " + std::to_string(first),
                .tokens = std::vector<uint32_t>(kPrefix + kScore, first)};
  text.digest.bytes[0] = static_cast<uint8_t>(first);
  return text;
}

std::vector<EvalCodec> Codecs(const FakeEvaluator& evaluator, const std::vector<std::string>& names) {
  auto codecs = ParseCodecs(names, evaluator.layout());
  EXPECT_TRUE(codecs.ok()) << codecs.status();
  return *codecs;
}

TEST(FidelityRun, MeasuresEveryCodecOnEveryTextOnce) {
  FakeEvaluator evaluator(3);
  Journal journal;
  Progress progress;
  FidelityRun run(evaluator, journal, progress, {Text(1), Text(3)}, kPrefix, kScore);
  const std::vector<EvalCodec> codecs = Codecs(evaluator, {"tq:k4v4", "tq:k2v2", "tq:k4v4@2", "tq:k4v4"});
  auto reports = run.Measure(codecs, 2);
  ASSERT_TRUE(reports.ok()) << reports.status();
  ASSERT_EQ(reports->size(), 4u);
  EXPECT_EQ(evaluator.texts_set, 2);
  EXPECT_EQ(evaluator.measured, 2 * 3);  // the second k4v4 is the first
  EXPECT_DOUBLE_EQ((*reports)[0].kl_mean, 2 + 6 * std::pow(4.0, -4));
  EXPECT_DOUBLE_EQ((*reports)[2].kl_mean, (*reports)[1].kl_mean);
  EXPECT_EQ((*reports)[2].codec, "tq:k4v4@2");
  EXPECT_EQ((*reports)[0].scored, 2 * kScore);
  // More of the same costs nothing; a new codec costs the texts again, but for the one that is loaded.
  ASSERT_TRUE(run.Measure(Codecs(evaluator, {"tq:k4v4"}), 1).ok());
  EXPECT_EQ(evaluator.texts_set, 2);
  ASSERT_TRUE(run.Measure(Codecs(evaluator, {"q8_0"}), 2).ok());
  EXPECT_EQ(evaluator.texts_set, 4);
  EXPECT_EQ(evaluator.measured, 8);
}

TEST(FidelityRun, GoesOnWhereAnotherOneEnded) {
  const std::string path = testing::TempDir() + "fidelity_run_" + std::to_string(getpid()) + ".jsonl";
  std::remove(path.c_str());
  const Digest model;
  double whole = 0;
  for (const int survives : {3, 2, 0}) {  // the first two break; together they have done five of six
    FakeEvaluator evaluator(3);
    evaluator.fail_after = survives;
    auto journal = Journal::Open(path, model);
    ASSERT_TRUE(journal.ok()) << journal.status();
    Progress progress;
    FidelityRun run(evaluator, *journal, progress, {Text(1), Text(3)}, kPrefix, kScore);
    auto reports = run.Measure(Codecs(evaluator, {"tq:k4v4", "tq:k3v3", "tq:k2v2"}), 2);
    EXPECT_EQ(reports.ok(), survives == 0);
    if (reports.ok()) {
      EXPECT_EQ(evaluator.measured, 1);
      EXPECT_EQ(evaluator.texts_set, 1);
      whole = (*reports)[2].kl_mean;
    }
  }
  EXPECT_DOUBLE_EQ(whole, 2 + 6 * std::pow(4.0, -2));
  std::remove(path.c_str());
}

// The search on a model whose prices are known: the first layer's K matters most, the last one's V not at
// all.
TEST(PolicyRun, FindsWhatTheModelWants) {
  FakeEvaluator evaluator(4);
  evaluator.k_weights = {64, 1, 1, 1};
  evaluator.v_weights = {1, 1, 1, 0};
  Journal journal;
  Progress progress;
  FidelityRun run(evaluator, journal, progress, {Text(0), Text(1)}, kPrefix, kScore);
  auto search = PlanPolicySearch("3.6", evaluator.layout());
  ASSERT_TRUE(search.ok()) << search.status();
  auto found = FindPolicy(*search, 1, run);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(evaluator.measured, 1 + 4 * 2 * 3);
  EXPECT_EQ(evaluator.texts_set, 1);
  std::vector<EvalCodec> codecs = search->uniform;
  ASSERT_EQ(codecs.size(), 2u);
  codecs.push_back(*found);
  auto reports = run.Measure(codecs, 2);
  ASSERT_TRUE(reports.ok());
  const double base = 0.5;  // the texts' own share
  EXPECT_LT((*reports)[2].kl_mean - base, 0.3 * ((*reports)[0].kl_mean - base));
  EXPECT_LE(*ObjectBitsOf(evaluator.layout(), *CodecSpec::Parse(found->name())), 3.6);
}

TEST(PolicyRun, RefusesABudgetBelowTwoBits) {
  const FakeEvaluator evaluator(4);
  auto search = PlanPolicySearch("2", evaluator.layout());
  EXPECT_EQ(search.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(search.status().message()), testing::HasSubstr("tq:k2v2 takes"));
}

}  // namespace
}  // namespace quire::worker

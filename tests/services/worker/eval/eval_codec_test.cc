#include "services/worker/eval/eval_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/services/worker/eval/fake_evaluator.h"

namespace quire::worker {
namespace {

using ::testing::HasSubstr;

Layout SmolLayout() { return Layout::Uniform(Digest{}, 30, 3, 64); }

std::string Refusal(const std::string& text) {
  auto codec = EvalCodec::Parse(text, SmolLayout());
  EXPECT_FALSE(codec.ok()) << text;
  return std::string(codec.status().message());
}

TEST(EvalCodec, HasACanonicalName) {
  const struct {
    const char *text, *name;
    double k, v;
  } rows[] = {{"tq", "tq:k4v4", 4.63, 4.13},
              {"tq:k4v4@3", "tq:k4v4@3", 3.50, 3.13},
              {"tq:k4v4,layers=1:k4v4,effort=2@2", "tq:k4v4,effort=2,layers=1:k4v4@2", 2.38, 2.13},
              {"tq:k8v8@4", "tq:k8v8@4", 4.63, 4.13},
              {"raw", "raw", 16, 16},
              {"fp8", "fp8", 8.25, 8.25},
              {"q4_0", "q4_0", 4.5, 4.5},
              {"q8_0", "q8_0", 8.5, 8.5},
              {"turboquant:3", "turboquant:3", 3.25, 3.25},
              {"bf16", "bf16", 16, 16}};
  for (const auto& row : rows) {
    auto codec = EvalCodec::Parse(row.text, SmolLayout());
    ASSERT_TRUE(codec.ok()) << codec.status();
    EXPECT_EQ(codec->name(), row.name);
    EXPECT_NEAR(codec->bits().k, row.k, 0.0051) << row.text;
    EXPECT_NEAR(codec->bits().v, row.v, 0.0051) << row.text;
  }
}

TEST(EvalCodec, RefusesByNamingTheMistake) {
  EXPECT_THAT(Refusal("tq:k4v4@"), HasSubstr("'tq:k4v4@' at 8: expected the bits to read"));
  EXPECT_THAT(Refusal("tq:k4v4@33"), HasSubstr("at 8"));
  EXPECT_THAT(Refusal("tq:k8v8@5"), HasSubstr("at 5 bits"));
  EXPECT_THAT(Refusal("raw@2"), HasSubstr("at 2 bits"));
  EXPECT_THAT(Refusal("fp8@4"), HasSubstr("fp8 can't be read at 4 bits"));
  EXPECT_THAT(Refusal("tq_prod:k4v4@2"), HasSubstr("only tq codes"));
  EXPECT_THAT(Refusal("tq:k9v4"), HasSubstr("at 4"));
  EXPECT_THAT(Refusal("tq:k4v4,layers=30:k8v8"), HasSubstr("names layer 30, the model has layers 0 to 29"));
  EXPECT_THAT(Refusal("q4_0@2"), HasSubstr("expected a codec"));
  EXPECT_THAT(Refusal("turboquant:0"), HasSubstr("turboquant:0"));
}

TEST(EvalCodec, MeasuresAtTheLevelsItNames) {
  FakeEvaluator evaluator(2);
  ASSERT_TRUE(evaluator.SetText(std::vector<uint32_t>{0}, 64, 1).ok());
  auto codecs = ParseCodecs({"tq:k4v4@3", "tq:k3v3", "q4_0"}, evaluator.layout());
  ASSERT_TRUE(codecs.ok()) << codecs.status();
  EXPECT_DOUBLE_EQ((*codecs)[0].Measure(evaluator, 64)->kl[0], 4 * std::pow(4.0, -3));
  EXPECT_DOUBLE_EQ((*codecs)[1].Measure(evaluator, 64)->kl[0], 4 * std::pow(4.0, -3));
  auto baseline = (*codecs)[2].Measure(evaluator, 64);
  ASSERT_TRUE(baseline.ok());
  EXPECT_EQ(baseline->kl[0], 1);  // what q4_0 makes of ones
  // 60 tokens at 4.5 bits and 4 raw sinks at 16, 2 layers of 2 heads of K and V of 64.
  EXPECT_EQ(baseline->object_bytes, 2u * 2 * 2 * 64 * (60 * 9 + 4 * 32) / 16);
  EXPECT_FALSE(ParseCodecs({"tq", "nothing"}, evaluator.layout()).ok());
}

}  // namespace
}  // namespace quire::worker

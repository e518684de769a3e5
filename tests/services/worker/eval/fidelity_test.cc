#include "services/worker/eval/fidelity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace quire::worker {
namespace {

TEST(Summary, PoolsTheScoredTokensOfAllTexts) {
  TextFidelity a{
      .kl = {0, 1, 2}, .same_top = {true, true, false}, .nll_difference = {0.1, 0.3}, .object_bytes = 600};
  TextFidelity b{.kl = {3, 4}, .same_top = {true, true}, .nll_difference = {-0.1, 0.1}, .object_bytes = 400};
  const FidelityReport report = Summarize({a, b}, 1000);
  EXPECT_DOUBLE_EQ(report.kl_mean, 2);
  EXPECT_DOUBLE_EQ(report.kl_median, 2);
  EXPECT_NEAR(report.kl_p99, 3.96, 1e-12);
  EXPECT_DOUBLE_EQ(report.top1, 0.8);
  EXPECT_NEAR(report.ppl_change, std::exp(0.1) - 1, 1e-12);
  EXPECT_DOUBLE_EQ(report.object_bits, 4);
  EXPECT_EQ(report.texts, 2u);
  EXPECT_EQ(report.scored, 5u);
  EXPECT_EQ(report.text_kl, (std::vector<double>{1, 3.5}));
}

TEST(Summary, ErrorsOfALayerAreWeightedByEnergyOverTheTexts) {
  TextFidelity a{.kl = {0}, .same_top = {true}}, b = a;
  a.k_error = {{10, 1}, {0, 0}};
  a.v_error = {{1, 0.5}, {2, 1}};
  b.k_error = {{30, 1}, {0, 0}};
  b.v_error = {{1, 0}, {2, 0}};
  const FidelityReport report = Summarize({a, b}, 1);
  EXPECT_EQ(report.k_error, (std::vector<double>{0.05, 0}));  // a layer of zeros has no error
  EXPECT_EQ(report.v_error, (std::vector<double>{0.25, 0.25}));
  EXPECT_THAT(Table({report}), testing::HasSubstr("2.5e-02/5.0e-02"));  // mean and worst of K
}

TEST(Summary, TheTableShowsLabelsWhereNamesAreLong) {
  FidelityReport report = Summarize({{.kl = {0.5}, .same_top = {true}}}, 4);
  report.codec = "tq:k4v4,layers=0:k8v8";
  EXPECT_THAT(Table({report}), testing::HasSubstr("\ntq:k4v4,layers=0:k8v8 "));
  report.label = "policy";
  EXPECT_THAT(Table({report}), testing::HasSubstr("\npolicy "));
}

TEST(Summary, JsonHasTheDocumentedKeys) {
  FidelityReport report =
      Summarize({{.kl = {0.5}, .same_top = {true}, .nll_difference = {}, .object_bytes = 8}}, 4);
  report.codec = "tq:k4v4@3";
  report.bits = {4.6, 4.1};
  report.k_error = {0.25, 0.5};
  report.v_error = {0.125};
  const auto json = nlohmann::json::parse(report.Json());
  EXPECT_EQ(json["codec"], "tq:k4v4@3");
  EXPECT_EQ(json["bits_k"], 4.6);
  EXPECT_EQ(json["bits_v"], 4.1);
  for (const char* key : {"kl_mean", "kl_median", "kl_p99"}) EXPECT_EQ(json[key], 0.5) << key;
  EXPECT_EQ(json["top1"], 1);
  EXPECT_EQ(json["ppl_change"], 0);
  EXPECT_EQ(json["object_bits"], 16);
  EXPECT_EQ(json["k_error"], (std::vector<double>{0.25, 0.5}));
  EXPECT_EQ(json["v_error"], std::vector<double>{0.125});
}

}  // namespace
}  // namespace quire::worker

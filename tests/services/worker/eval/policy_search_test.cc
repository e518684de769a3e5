#include "services/worker/eval/policy_search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "core/codec/codebook.h"
#include "services/worker/eval/code_bits.h"

namespace quire::worker {
namespace {

using ::testing::HasSubstr;

Layout LayoutOf(uint32_t layers) { return Layout::Uniform(Digest{}, layers, 2, 64); }

// Probes' divergences where a stream of weight w at b bits adds w·4^−b to 1e-5.
std::vector<double> Divergences(const std::vector<double>& k_weights, const std::vector<double>& v_weights) {
  std::vector<double> kl{1e-5};
  for (size_t layer = 0; layer < k_weights.size(); ++layer) {
    for (const double weight : {k_weights[layer], v_weights[layer]}) {
      for (int bits = 2; bits <= 4; ++bits) kl.push_back(1e-5 + weight * std::pow(4.0, -bits));
    }
  }
  return kl;
}

double BitsOfPolicy(const Layout& layout, const Policy& policy) {
  auto spec = SpecOf(policy);
  EXPECT_TRUE(spec.ok()) << spec.status();
  return *ObjectBitsOf(layout, *spec);
}

TEST(Budget, ComesInThreeUnits) {
  const Layout layout = LayoutOf(30);  // 7,680 elements a token
  EXPECT_DOUBLE_EQ(*ParseBudget("3.5", layout), 3.5);
  EXPECT_DOUBLE_EQ(*ParseBudget("25%", layout), 4);
  EXPECT_DOUBLE_EQ(*ParseBudget("3840B", layout), 4);
  for (const char* wrong : {"", "x", "3.5 ", "-1", "0", "3.5bits", "nan", "inf", "%", "1e400"}) {
    auto budget = ParseBudget(wrong, layout);
    EXPECT_EQ(budget.status().code(), absl::StatusCode::kInvalidArgument) << wrong;
    EXPECT_THAT(std::string(budget.status().message()), HasSubstr("bits an element (3.5)"));
  }
}

TEST(Spec, IsTheShortestOne) {
  EXPECT_EQ(SpecOf({{3, 3}, {3, 3}, {3, 3}})->ToString(), "tq:k3v3");
  EXPECT_EQ(SpecOf({{8, 2}, {4, 3}, {4, 3}, {8, 2}, {8, 2}, {4, 3}, {4, 3}})->ToString(),
            "tq:k4v3,layers=0:k8v2,layers=3-4:k8v2");
}

TEST(Probes, ChangeOneStreamEach) {
  const Layout layout = LayoutOf(3);
  const std::vector<std::string> probes = PriceProbes(layout);
  ASSERT_EQ(probes.size(), 1 + 3 * 2 * 3u);
  EXPECT_EQ(probes[0], "tq:k8v8");
  EXPECT_EQ(probes[1], "tq:k8v8,layers=0:k2v8");
  EXPECT_EQ(probes[6], "tq:k8v8,layers=0:k8v4");
  EXPECT_EQ(probes[18], "tq:k8v8,layers=2:k8v4");
  for (const std::string& probe : probes) EXPECT_TRUE(CodecSpec::Parse(probe).ok()) << probe;
}

TEST(PricesOf, AreMeasuredOrFollowTheCodebook) {
  const Prices prices(LayoutOf(2), Divergences({1, 2}, {3, 0}));
  EXPECT_NEAR(prices.K(1, 3), 2 * std::pow(4.0, -3), 1e-12);
  EXPECT_NEAR(prices.V(0, 4), 3 * std::pow(4.0, -4), 1e-12);
  const double fall = Codebook::Get(64, 6).mse() / Codebook::Get(64, 4).mse();
  EXPECT_NEAR(prices.V(0, 6), 3 * std::pow(4.0, -4) * fall, 1e-12);
  EXPECT_NEAR(prices.Of({{3, 4}, {3, 3}}), std::pow(4.0, -3) + 3 * std::pow(4.0, -4) + 2 * std::pow(4.0, -3),
              1e-9);
}

TEST(PricesOf, NoiseNeverMakesMoreBitsDearer) {
  std::vector<double> kl = Divergences({1}, {1});
  kl[1] = 0.5e-5;  // K at 2 bits below the base: free
  kl[5] = 0.2;     // V at 3 bits above V at 2
  const Prices prices(LayoutOf(1), kl);
  EXPECT_EQ(prices.K(0, 2), 0);
  EXPECT_EQ(prices.K(0, 3), 0);
  EXPECT_EQ(prices.V(0, 3), prices.V(0, 2));
  for (int bits = 3; bits <= 8; ++bits) EXPECT_LE(prices.V(0, bits), prices.V(0, bits - 1));
}

TEST(Search, SpendsTheBudgetWhereItSavesMost) {
  const Layout layout = LayoutOf(4);
  const Prices prices(layout, Divergences({64, 1, 1, 1}, {1, 1, 1, 0.01}));
  const double budget = BitsOfPolicy(layout, {{3, 3}, {3, 3}, {3, 3}, {3, 3}});
  auto policy = CheapestPolicy(layout, prices, budget);
  ASSERT_TRUE(policy.ok()) << policy.status();
  EXPECT_LE(BitsOfPolicy(layout, *policy), budget);
  EXPECT_GE((*policy)[0].k, 5);
  EXPECT_EQ((*policy)[3].v, 2);
  EXPECT_LT(prices.Of(*policy), 0.3 * prices.Of({{3, 3}, {3, 3}, {3, 3}, {3, 3}}));
}

// Against every policy there is.
TEST(Search, IsNearTheBestThereIs) {
  const Layout layout = LayoutOf(2);
  const Prices prices(layout, Divergences({5, 1}, {0.7, 0.2}));
  std::vector<std::pair<double, double>> all;  // bits, price
  for (int i = 0; i < 7 * 7 * 7 * 7; ++i) {
    const Policy policy{{2 + i % 7, 2 + i / 7 % 7}, {2 + i / 49 % 7, 2 + i / 343}};
    all.push_back({BitsOfPolicy(layout, policy), prices.Of(policy)});
  }
  for (double budget = 3; budget < 9; budget += 0.37) {
    auto policy = CheapestPolicy(layout, prices, budget);
    ASSERT_TRUE(policy.ok()) << policy.status();
    EXPECT_LE(BitsOfPolicy(layout, *policy), budget);
    double best = HUGE_VAL;
    for (const auto& [bits, price] : all) {
      if (bits <= budget) best = std::min(best, price);
    }
    EXPECT_LE(prices.Of(*policy), 2 * best) << budget;  // a greedy bargain, of four streams only
  }
}

TEST(Search, KnowsItsEnds) {
  const Layout layout = LayoutOf(3);
  const Prices prices(layout, Divergences({1, 1, 1}, {1, 1, 1}));
  auto most = CheapestPolicy(layout, prices, 16);
  ASSERT_TRUE(most.ok());
  EXPECT_EQ(*most, Policy(3, {8, 8}));
  auto least = CheapestPolicy(layout, prices, BitsOfPolicy(layout, Policy(3)));
  ASSERT_TRUE(least.ok());
  EXPECT_EQ(*least, Policy(3));
  auto none = CheapestPolicy(layout, prices, 1);
  EXPECT_EQ(none.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("tq:k2v2 takes"));
}

TEST(Uniform, StandsOnBothSidesOfABudget) {
  const Layout layout = LayoutOf(30);
  auto bits = [&](const char* text) { return *ObjectBitsOf(layout, *CodecSpec::Parse(text)); };
  auto specs = UniformSpecsAround(layout, 3.5);
  ASSERT_TRUE(specs.ok());
  ASSERT_TRUE(specs->below.has_value() && specs->above.has_value());
  EXPECT_EQ(specs->below->ToString(), "tq:k3v3");
  EXPECT_EQ(specs->above->ToString(), "tq:k4v3");
  specs = UniformSpecsAround(layout, bits("tq:k4v4"));
  EXPECT_EQ(specs->below->ToString(), "tq:k4v4");
  EXPECT_EQ(specs->above->ToString(), "tq:k4v4");
  EXPECT_FALSE(UniformSpecsAround(layout, 1)->below.has_value());
  EXPECT_FALSE(UniformSpecsAround(layout, 15)->above.has_value());
}

}  // namespace
}  // namespace quire::worker

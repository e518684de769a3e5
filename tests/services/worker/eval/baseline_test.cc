#include "services/worker/eval/baseline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "core/codec/rotation.h"

namespace quire::worker {
namespace {

using ::testing::HasSubstr;

Layout LayoutOf(uint32_t dim) { return Layout::Uniform(Digest{}, 2, 1, dim); }

std::vector<float> Block(std::vector<float> first) {
  first.resize(32);
  return first;
}

// Worked by hand from the published definition: the value of largest magnitude stands for −8 scales, codes
// are floor(x/scale + 8.5), at most 15.
TEST(Q40, IsLlamaCppsFormat) {
  std::vector<float> block = Block({-8, 0.4f, 0.6f, 7.9f, 7.4f, -0.5f, -0.6f, 6.5f});
  RoundTripQ40(block);  // the scale is 1
  EXPECT_EQ(block, Block({-8, 0, 1, 7, 7, 0, -1, 7}));
}

TEST(Q40, KeepsItsScaleInHalfPrecision) {
  std::vector<float> block = Block({0.1f, -0.1f, 0.05f});
  RoundTripQ40(block);
  // 0.1/−8 in f16 is −1638/2^17. The first of two largest values sets the sign; the other one is then cut
  // at 7.
  const float scale = 1638.0f / 131072;
  EXPECT_EQ(block, Block({8 * scale, -7 * scale, 4 * scale}));
}

TEST(Q80, IsLlamaCppsFormat) {
  std::vector<float> block = Block({127, 0.5f, -0.5f, 2.5f, 126.4f, -127, 0.4f});
  RoundTripQ80(block);  // the scale is 1; halves go away from zero
  EXPECT_EQ(block, Block({127, 1, -1, 3, 126, -127, 0}));
  block = Block({0.1f, -0.05f});
  RoundTripQ80(block);
  // 0.1/127 = 1651.3/2^21 is 1651/2^21 in f16, −0.05 is code −63.5 → −63 or −64 scales.
  const float scale = 1651.0f / 2097152;
  EXPECT_EQ(block[0], 127 * scale);
  EXPECT_NEAR(block[1], -63.5f * scale, 0.51f * scale);
}

TEST(Ggml, BlocksStandAloneAndZerosStayZero) {
  std::vector<float> two(64);
  two[0] = 1;
  two[40] = 1000;
  RoundTripQ40(two);
  EXPECT_EQ(two[0], 1);
  EXPECT_EQ(two[40], 1000);
  EXPECT_EQ(std::count(two.begin(), two.end(), 0.0f), 62);
  std::vector<float> zeros(32);
  RoundTripQ40(zeros);
  RoundTripQ80(zeros);
  EXPECT_EQ(zeros, std::vector<float>(32));
}

std::vector<float> Gaussian(size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& value : values) value = normal(random);
  return values;
}

double RelativeError(const std::vector<float>& x, const std::vector<float>& y) {
  double error = 0, energy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    error += (double{x[i]} - y[i]) * (double{x[i]} - y[i]);
    energy += double{x[i]} * x[i];
  }
  return error / energy;
}

// The exact quantiser's error at d = 128 for 1 to 4 bits, from numerical quadrature.
TEST(TurboQuant, ErrsAsTheExactCodebookDoes) {
  const double exact[] = {0.36089, 0.11600, 0.03397, 0.00931};
  const Layout layout = LayoutOf(128);
  for (int bits = 1; bits <= 4; ++bits) {
    auto codec = MakeBaseline("turboquant:" + std::to_string(bits), layout);
    ASSERT_TRUE(codec.ok()) << codec.status();
    EXPECT_DOUBLE_EQ((*codec)->bits(), bits + 0.125);
    double sum = 0;
    for (unsigned seed = 0; seed < 100; ++seed) {
      const std::vector<float> x = Gaussian(64 * 128, seed);
      std::vector<float> y = x;
      (*codec)->Apply(y);
      sum += RelativeError(x, y) / 100;
    }
    EXPECT_NEAR(sum, exact[bits - 1], 0.01 * exact[bits - 1]) << bits;
  }
}

// Vectors far from the rotation's blessing: the error is the same, and scaling a vector scales what it
// decodes to.
TEST(TurboQuant, TakesOutliersScalesAndZeros) {
  auto codec = MakeBaseline("turboquant:4", LayoutOf(64));
  ASSERT_TRUE(codec.ok());
  std::vector<float> x = Gaussian(64 * 64, 3), zeros(64 * 64);
  for (size_t t = 0; t < 64; ++t) x[t * 64 + t] += 20;
  std::vector<float> y = x, scaled = x;
  for (float& value : scaled) value *= 1024;
  (*codec)->Apply(y);
  (*codec)->Apply(scaled);
  (*codec)->Apply(zeros);
  EXPECT_LT(RelativeError(x, y), 0.012);
  for (size_t i = 0; i < y.size(); ++i) ASSERT_EQ(scaled[i], y[i] * 1024) << i;
  EXPECT_EQ(zeros, std::vector<float>(64 * 64));
}

TEST(Bf16, RoundsEveryValue) {
  auto codec = MakeBaseline("bf16", LayoutOf(64));
  ASSERT_TRUE(codec.ok());
  EXPECT_EQ((*codec)->bits(), 16);
  std::vector<float> values{1, 1 + 0x1p-9f, 1 + 0x1.8p-8f, -3.0f};
  (*codec)->Apply(values);
  EXPECT_EQ(values, (std::vector<float>{1, 1, 1 + 0x1p-7f, -3}));
}

TEST(Names, AreKnownOrRefused) {
  const Layout layout = LayoutOf(80);
  EXPECT_FALSE(IsBaselineName("tq:k4v4"));
  EXPECT_FALSE(IsBaselineName("raw"));
  EXPECT_TRUE(MakeBaseline("turboquant:8", layout).ok());
  for (const char* wrong : {"turboquant:", "turboquant:0", "turboquant:9", "turboquant:44", "turboquant:x"}) {
    EXPECT_TRUE(IsBaselineName(wrong));
    auto made = MakeBaseline(wrong, layout);
    EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument) << wrong;
    EXPECT_THAT(std::string(made.status().message()), HasSubstr(wrong));
  }
  auto made = MakeBaseline("q4_0", layout);
  EXPECT_THAT(std::string(made.status().message()), HasSubstr("heads of 80"));
}

}  // namespace
}  // namespace quire::worker

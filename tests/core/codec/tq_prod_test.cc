// tq_prod: the projection's distribution, the codes against their definition in double, and what the codec is
// for: inner products that are right on average, with the spread that theory gives them.
#include "core/codec/tq_prod.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <numbers>
#include <numeric>
#include <random>
#include <vector>

#include "core/base/float16.h"
#include "tests/core/codec/each_target.h"

namespace quire {
namespace {

struct Coded {
  TqProdHead head;
  std::vector<std::vector<uint8_t>> planes;

  ConstPlanePointers pointers() const {
    ConstPlanePointers at{};
    for (size_t p = 0; p < planes.size(); ++p) at[p] = planes[p].data();
    return at;
  }
};

Coded Encode(const Rotation& rotation, const Projection& projection, int bits, FragmentOrder order,
             const std::vector<float>& rows, uint32_t first = 0) {
  Coded coded;
  PlanePointers pointers{};
  for (int p = 0; p < bits - 1; ++p) {
    coded.planes.emplace_back(PlaneBytes(rotation.dim(), p == 0 ? 2 : 1), 0xEE);
    pointers[static_cast<size_t>(p)] = coded.planes.back().data();
  }
  HeadRows view{rows.data(), DType::kF32, rotation.dim()};
  EXPECT_EQ(EncodeTqProdHead(rotation, projection, bits, order, first, view, &coded.head, pointers), -1);
  return coded;
}

std::vector<float> Decode(const Rotation& rotation, const Projection& projection, int bits,
                          FragmentOrder order, const Coded& coded, uint32_t first = 0) {
  std::vector<float> out(64 * rotation.dim(), 77.0f);
  DecodeTqProdHead(rotation, projection, bits, order, first, coded.head, coded.pointers(),
                   {out.data(), DType::kF32, rotation.dim()});
  return out;
}

std::vector<float> Gaussian(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float& value : x) value = normal(random);
  return x;
}

TEST(TqProdTest, ProjectionsAreStandardNormal) {
  for (uint64_t seed : {0u, 42u}) {
    Projection projection(256, seed);
    double moments[5] = {}, neighbours = 0, rows = 0;
    const size_t n = 256 * 256;
    for (size_t i = 0; i < n; ++i) {
      double x = projection.row(0)[i];
      for (int k = 1; k <= 4; ++k) moments[k] += std::pow(x, k) / n;
      if (i + 1 < n) neighbours += x * projection.row(0)[i + 1] / n;
      if (i + 256 < n) rows += x * projection.row(0)[i + 256] / n;
    }
    const double sigma = 1 / std::sqrt(static_cast<double>(n));
    EXPECT_NEAR(moments[1], 0, 4 * sigma);
    EXPECT_NEAR(moments[2], 1, 4 * sigma * std::sqrt(2));
    EXPECT_NEAR(moments[3], 0, 4 * sigma * std::sqrt(15));
    EXPECT_NEAR(moments[4], 3, 4 * sigma * std::sqrt(96));
    EXPECT_NEAR(neighbours, 0, 4 * sigma);
    EXPECT_NEAR(rows, 0, 4 * sigma);
  }
  Projection a(64, 1), same(64, 1), other(64, 2);
  EXPECT_TRUE(std::equal(a.row(0), a.row(63) + 64, same.row(0)));
  EXPECT_FALSE(std::equal(a.row(0), a.row(0) + 64, other.row(0)));
}

// Every target gives the same bytes, and they are the definition's.
TEST(TqProdTest, CodesAndRowsAreTheDefinitions) {
  for (uint32_t dim : {16u, 64u, 80u, 128u}) {
    for (int bits : {2, 3, 4, 8}) {
      for (FragmentOrder order : {FragmentOrder::kKey, FragmentOrder::kValue}) {
        SCOPED_TRACE(testing::Message() << "d=" << dim << " b=" << bits);
        Rotation rotation(dim, 9);
        Projection projection(dim, 9);
        std::vector<float> x = Gaussian(64 * dim, dim + static_cast<uint32_t>(bits));
        Coded coded;
        std::vector<float> decoded;
        for (int64_t target : RunnableTargets()) {
          hwy::SetSupportedTargetsForTest(target);
          Coded one = Encode(rotation, projection, bits, order, x, 4);
          std::vector<float> rows = Decode(rotation, projection, bits, order, one, 4);
          hwy::SetSupportedTargetsForTest(0);
          if (target != RunnableTargets()[0]) {
            EXPECT_EQ(one.planes, coded.planes);
            EXPECT_EQ(one.head.scales, coded.head.scales);
            EXPECT_EQ(one.head.rests, coded.head.rests);
            EXPECT_EQ(one.head.error, coded.head.error);
            EXPECT_EQ(rows, decoded);
          }
          coded = one;
          decoded = rows;
        }
        std::vector<uint8_t> codes(64 * dim);
        UnpackPlanes(order, dim, bits, coded.pointers().data(), codes.data());
        double energy = 0, error = 0;
        for (uint32_t t = 0; t < 64; ++t) {
          if (t < 4) {
            EXPECT_EQ(coded.head.scales[t] | coded.head.rests[t], 0);
            for (uint32_t c = 0; c < dim; ++c) {
              ASSERT_EQ(codes[c * 64 + t], 0);
              ASSERT_EQ(decoded[t * dim + c], 77.0f);
            }
            continue;
          }
          std::vector<float> y(x.begin() + t * dim, x.begin() + (t + 1) * dim);
          rotation.Apply(y.data());
          double norm = std::sqrt(std::inner_product(y.begin(), y.end(), y.begin(), 0.0)), rest = 0;
          double scale = FromBf16(coded.head.scales[t]);
          EXPECT_NEAR(scale, norm / std::sqrt(dim), 0x1p-8 * scale);
          std::vector<double> r(dim), hat(dim);
          for (uint32_t c = 0; c < dim; ++c) {
            hat[c] = scale * Codebook::Get(dim, bits - 1).table(bits - 1)[codes[c * 64 + t] >> 1];
            r[c] = y[c] - hat[c];
            rest += r[c] * r[c];
          }
          EXPECT_NEAR(FromBf16(coded.head.rests[t]), std::sqrt(rest), 0x1p-8 * std::sqrt(rest));
          for (uint32_t j = 0; j < dim; ++j) {
            double product = 0;
            for (uint32_t c = 0; c < dim; ++c) product += double{projection.row(j)[c]} * r[c];
            if (std::fabs(product) > 1e-4 * std::sqrt(rest)) {
              ASSERT_EQ(codes[j * 64 + t] & 1, product < 0) << j << " " << t;
            }
          }
          double kappa = std::sqrt(std::numbers::pi / 2) / dim;
          for (uint32_t c = 0; c < dim; ++c) {
            for (uint32_t j = 0; j < dim; ++j) {
              double sign = codes[j * 64 + t] & 1 ? -1 : 1;
              hat[c] += kappa * FromBf16(coded.head.rests[t]) * sign * projection.row(j)[c];
            }
          }
          std::vector<float> back(hat.begin(), hat.end());
          rotation.ApplyTransposed(back.data());
          for (uint32_t c = 0; c < dim; ++c) {
            ASSERT_NEAR(decoded[t * dim + c], back[c], 1e-5 * norm);
            energy += double{x[t * dim + c]} * x[t * dim + c];
            error += std::pow(x[t * dim + c] - decoded[t * dim + c], 2);
          }
        }
        EXPECT_NEAR(coded.head.energy, energy, 1e-5 * energy);
        EXPECT_NEAR(coded.head.error, error, 1e-4 * error);
      }
    }
  }
}

// Pairs whose inner product is known to be far from zero: q = ρ·x + √(1 − ρ²)·noise, over many seeds of R and
// S. x is not isotropic: its channels' sizes span a factor of 50, and it has a common part.
struct Pairs {
  double slope = 0;     // of ⟨q, x̂⟩ over ⟨q, x⟩, through zero
  double variance = 0;  // of ⟨q, x̂⟩ − ⟨q, x⟩ over theory's
  double plain_slope =
      0;  // the slope with tq's index of all b bits and the exact norm as scale, no correction
};

Pairs Measure(uint32_t dim, int bits, int seeds) {
  constexpr double kRho = 0.7;
  double xx = 0, xy = 0, xp = 0, spread = 0, theory = 0;
  const Codebook& index = Codebook::Get(dim, bits - 1);
  const Codebook& plain = Codebook::Get(dim, bits);
  for (int seed = 1; seed <= seeds; ++seed) {
    Rotation rotation(dim, static_cast<uint64_t>(seed));
    Projection projection(dim, static_cast<uint64_t>(seed));
    std::vector<float> x = Gaussian(64 * dim, static_cast<uint32_t>(seed)),
                       noise = Gaussian(64 * dim, static_cast<uint32_t>(seed) + 100000);
    for (size_t i = 0; i < x.size(); ++i) {
      float size = std::pow(50.0f, static_cast<float>(i % dim) / static_cast<float>(dim));
      x[i] = x[i] * size + (i % dim == 1 ? 30.0f : 2.0f);
    }
    std::vector<float> decoded = Decode(rotation, projection, bits, FragmentOrder::kKey,
                                        Encode(rotation, projection, bits, FragmentOrder::kKey, x));
    for (uint32_t t = 0; t < 64; ++t) {
      const float *row = x.data() + t * dim, *row_noise = noise.data() + t * dim;
      double norm = std::sqrt(std::inner_product(row, row + dim, row, 0.0));
      double noise_norm = std::sqrt(std::inner_product(row_noise, row_noise + dim, row_noise, 0.0));
      std::vector<float> y(row, row + dim), q(dim);
      for (uint32_t c = 0; c < dim; ++c)
        q[c] =
            static_cast<float>(kRho * row[c] / norm + std::sqrt(1 - kRho * kRho) * row_noise[c] / noise_norm);
      double exact = std::inner_product(q.begin(), q.end(), row, 0.0) / norm;
      double coded = std::inner_product(q.begin(), q.end(), decoded.begin() + t * dim, 0.0) / norm;
      rotation.Apply(y.data());
      std::vector<float> rotated_q = q;
      rotation.Apply(rotated_q.data());
      double textbook = 0, rest = 0, q_rest = 0, qq = 0;
      auto cell = [&](const Codebook& book, double z) {
        uint32_t n = 0;
        for (double threshold : book.thresholds()) n += threshold < std::fabs(z);
        return std::copysign(book.centroids()[n], z) / std::sqrt(dim);
      };
      for (uint32_t c = 0; c < dim; ++c) {
        double z = y[c] / norm, r = z - cell(index, z * std::sqrt(dim));
        textbook += rotated_q[c] * cell(plain, z * std::sqrt(dim));
        rest += r * r;
        q_rest += rotated_q[c] * r;
        qq += double{q[c]} * q[c];
      }
      xx += exact * exact;
      xy += exact * coded;
      xp += exact * textbook;
      spread += std::pow(coded - exact, 2);
      theory += (std::numbers::pi / 2 * qq * rest - q_rest * q_rest) / dim;
    }
  }
  return {xy / xx, spread / theory, xp / xx};
}

// Slope 1.000 ± .005, where the textbook's quantiser with the norm as scale shrinks by its mean squared
// error.
TEST(TqProdTest, InnerProductsAreUnbiased) {
  for (auto [dim, bits, seeds] : {std::tuple(64u, 2, 500),
                                  {64u, 3, 250},
                                  {64u, 4, 150},
                                  {80u, 3, 250},
                                  {128u, 2, 300},
                                  {128u, 3, 150},
                                  {128u, 4, 80},
                                  {128u, 8, 60}}) {
    SCOPED_TRACE(testing::Message() << "d=" << dim << " b=" << bits);
    Pairs pairs = Measure(dim, bits, seeds);
    EXPECT_NEAR(pairs.slope, 1.0, 0.005);
    EXPECT_NEAR(pairs.variance, 1.0, 0.05);
    double mse = Codebook::Get(dim, bits).mse();
    EXPECT_NEAR(pairs.plain_slope, 1 - mse,
                0.2 * mse + 2e-4);  // d=80 is rotated in parts of 16 and 5: less like a Gaussian
    EXPECT_LT(pairs.plain_slope, 1 - 0.5 * mse);
    std::printf("d=%u b=%d: slope %.4f, variance %.3f of theory's; norm-scaled tq: slope %.4f\n", dim, bits,
                pairs.slope, pairs.variance, pairs.plain_slope);
  }
}

TEST(TqProdTest, ZeroAndTinyVectorsAreZeroBits) {
  Rotation rotation(64, 1);
  Projection projection(64, 1);
  for (float tiny : {0.0f, 1e-40f, 1e-30f}) {
    std::vector<float> x = Gaussian(64 * 64, 4);
    for (uint32_t c = 0; c < 64; ++c) x[10 * 64 + c] = c % 2 ? tiny : -tiny;
    Coded coded = Encode(rotation, projection, 4, FragmentOrder::kKey, x);
    EXPECT_EQ(coded.head.scales[10] | coded.head.rests[10], 0);
    EXPECT_NE(coded.head.scales[11], 0);
    std::vector<uint8_t> codes(64 * 64);
    UnpackPlanes(FragmentOrder::kKey, 64, 4, coded.pointers().data(), codes.data());
    std::vector<float> out = Decode(rotation, projection, 4, FragmentOrder::kKey, coded);
    for (uint32_t c = 0; c < 64; ++c) {
      EXPECT_EQ(codes[c * 64 + 10], 0);
      EXPECT_EQ(out[10 * 64 + c], 0);
    }
  }
}

TEST(TqProdTest, NotFiniteIsReportedByToken) {
  Rotation rotation(64, 1);
  Projection projection(64, 1);
  std::vector<uint8_t> plane(PlaneBytes(64, 2));
  for (float bad : {NAN, INFINITY, -INFINITY, 3e38f}) {
    std::vector<float> x = Gaussian(64 * 64, 9);
    x[33 * 64 + 5] = bad;
    TqProdHead head;
    EXPECT_EQ(EncodeTqProdHead(rotation, projection, 2, FragmentOrder::kKey, 0, {x.data(), DType::kF32, 64},
                               &head, {plane.data()}),
              33);
  }
}

}  // namespace
}  // namespace quire

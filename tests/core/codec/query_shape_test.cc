// Steered errors: that they miss the queries, and what is refused.
#include "core/codec/query_shape.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/codec/head_codec.h"

namespace quire {
namespace {

constexpr uint32_t kDim = 64;
constexpr uint64_t kSeed = 11;

using Vector = std::vector<float>;

// Queries with most of their energy in `directions` of kDim directions.
class Queries {
 public:
  explicit Queries(uint32_t directions, uint32_t seed) : random_(seed), axes_(directions, Vector(kDim)) {
    for (Vector& axis : axes_) {
      for (float& x : axis) x = normal_(random_);
    }
  }
  Vector Draw() {
    Vector q(kDim);
    for (float& x : q) x = 0.3f * normal_(random_);
    for (const Vector& axis : axes_) {
      const float amount = normal_(random_);
      for (uint32_t c = 0; c < kDim; ++c) q[c] += amount * axis[c];
    }
    return q;
  }
  std::vector<double> Moments(int draws) {
    std::vector<double> moments(kDim * kDim);
    for (int n = 0; n < draws; ++n) {
      const Vector q = Draw();
      for (uint32_t i = 0; i < kDim; ++i) {
        for (uint32_t j = 0; j < kDim; ++j) moments[i * kDim + j] += double{q[i]} * q[j];
      }
    }
    return moments;
  }

 private:
  std::mt19937 random_;
  std::normal_distribution<float> normal_;
  std::vector<Vector> axes_;
};

struct Block {
  std::vector<float> keys, decoded;  // [64][kDim]
};

Block Code(int bits, int kept_levels, const QueryShape* shape) {
  Block block{std::vector<float>(64 * kDim), std::vector<float>(64 * kDim)};
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (float& x : block.keys) x = normal(random);
  const Rotation rotation(kDim, kSeed);
  const Codebook& book = Codebook::Get(kDim, bits);
  std::vector<std::vector<uint8_t>> bytes;
  PlanePointers planes{};
  ConstPlanePointers const_planes{};
  for (int p = 0; p < bits - 1; ++p) bytes.emplace_back(PlaneBytes(kDim, p == 0 ? 2 : 1));
  for (size_t p = 0; p < bytes.size(); ++p) const_planes[p] = planes[p] = bytes[p].data();
  TqKey key;
  EXPECT_EQ(EncodeKeyHead(rotation, book, 0, 0, {block.keys.data(), DType::kF32, kDim}, &key, planes, nullptr,
                          shape),
            -1);
  float scales[64], mean[kDim];
  TqKeyScales(book, kept_levels, key, scales);
  TqKeyMean(kDim, key, mean);
  DecodeHead(&rotation, book, KeptBits(bits, kept_levels - 1), FragmentOrder::kKey, const_planes, scales,
             mean, 0, {block.decoded.data(), DType::kF32, kDim});
  return block;
}

// E[(q·e)²] over keys and fresh queries.
double QueryError(const Block& block, Queries queries) {
  double sum = 0;
  for (int n = 0; n < 300; ++n) {
    const Vector q = queries.Draw();
    for (uint32_t t = 0; t < 64; ++t) {
      double product = 0;
      for (uint32_t c = 0; c < kDim; ++c)
        product += double{q[c]} * (block.decoded[t * kDim + c] - block.keys[t * kDim + c]);
      sum += product * product;
    }
  }
  return sum;
}

TEST(QueryShapeTest, ErrorsMissTheQueries) {
  Queries queries(6, 1);
  const Rotation rotation(kDim, kSeed);
  const QueryShape shape = *QueryShape::Create(rotation, queries.Moments(2000));
  for (int bits : {3, 4, 6}) {
    const int levels = bits > 4 ? 4 : bits - 1;
    const double plain = QueryError(Code(bits, levels, nullptr), queries),
                 steered = QueryError(Code(bits, levels, &shape), queries);
    EXPECT_LT(steered, 0.4 * plain) << bits;
  }
}

// The lower levels are the plain code's, or better: what is steered stands in the last bit.
TEST(QueryShapeTest, LowerLevelsLoseNothing) {
  Queries queries(6, 1);
  const QueryShape shape = *QueryShape::Create(Rotation(kDim, kSeed), queries.Moments(2000));
  for (int levels : {1, 2}) {
    EXPECT_LT(QueryError(Code(4, levels, &shape), queries),
              1.05 * QueryError(Code(4, levels, nullptr), queries))
        << levels;
  }
}

// Queries that lie everywhere alike leave nothing to steer by.
TEST(QueryShapeTest, IsotropicQueriesFeedNothingBack) {
  std::vector<double> moments(kDim * kDim);
  for (uint32_t i = 0; i < kDim; ++i) moments[i * kDim + i] = 3;
  const QueryShape shape = *QueryShape::Create(Rotation(kDim, kSeed), moments);
  for (uint32_t i = 0; i < kDim; ++i) {
    for (uint32_t j = i + 1; j < kDim; ++j) EXPECT_NEAR(shape.feedback()[i * kDim + j], 0, 1e-6);
  }
}

// U of the definition, found another way: row i of U over its diagonal is row 0 of C_ii⁻¹ (C without its
// first i rows and columns) over its first element.
TEST(QueryShapeTest, FeedbackIsWhatTheRestCanMakeUpFor) {
  constexpr uint32_t kSmall = 16;
  const Rotation rotation(kSmall, kSeed);
  std::mt19937 random(2);
  std::normal_distribution<double> normal;
  std::vector<double> moments(kSmall * kSmall);
  for (int n = 0; n < 40; ++n) {
    double q[kSmall];
    for (double& x : q) x = normal(random);
    for (uint32_t i = 0; i < kSmall; ++i) {
      for (uint32_t j = 0; j < kSmall; ++j) moments[i * kSmall + j] += q[i] * q[j];
    }
  }
  const QueryShape shape = *QueryShape::Create(rotation, moments, 0.1);
  // R·M·Rᵀ by R's columns.
  std::vector<std::vector<float>> columns(kSmall, std::vector<float>(kSmall));
  for (uint32_t i = 0; i < kSmall; ++i) {
    columns[i][i] = 1;
    rotation.Apply(columns[i].data());
  }
  std::vector<std::vector<double>> c(kSmall, std::vector<double>(kSmall));
  double trace = 0;
  for (uint32_t i = 0; i < kSmall; ++i) trace += moments[i * kSmall + i];
  for (uint32_t a = 0; a < kSmall; ++a) {
    for (uint32_t b = 0; b < kSmall; ++b) {
      for (uint32_t i = 0; i < kSmall; ++i) {
        for (uint32_t j = 0; j < kSmall; ++j)
          c[a][b] += double{columns[i][a]} * moments[i * kSmall + j] * columns[j][b] * kSmall / trace;
      }
      if (a == b) c[a][b] += 0.1;
    }
  }
  for (uint32_t first = 0; first + 1 < kSmall; ++first) {
    // Solve C_rest · x = −C_rest,first by Gauss.
    const uint32_t n = kSmall - first - 1;
    std::vector<std::vector<double>> a(n, std::vector<double>(n + 1));
    for (uint32_t i = 0; i < n; ++i) {
      for (uint32_t j = 0; j < n; ++j) a[i][j] = c[first + 1 + i][first + 1 + j];
      a[i][n] = -c[first + 1 + i][first];
    }
    for (uint32_t i = 0; i < n; ++i) {
      for (uint32_t k = 0; k < n; ++k) {
        if (k == i) continue;
        const double factor = a[k][i] / a[i][i];
        for (uint32_t j = i; j <= n; ++j) a[k][j] -= factor * a[i][j];
      }
    }
    for (uint32_t i = 0; i < n; ++i)
      EXPECT_NEAR(shape.feedback()[first * kSmall + first + 1 + i], a[i][n] / a[i][i], 1e-4)
          << first << " " << i;
  }
}

TEST(QueryShapeTest, RefusesWhatAreNotMoments) {
  const Rotation rotation(kDim, kSeed);
  std::vector<double> moments(kDim * kDim);
  auto refused = [&](const std::vector<double>& m) {
    return absl::IsInvalidArgument(QueryShape::Create(rotation, m).status());
  };
  EXPECT_TRUE(refused(moments)) << "all zero";
  EXPECT_TRUE(refused({1, 2, 3}));
  for (uint32_t i = 0; i < kDim; ++i) moments[i * kDim + i] = 1;
  EXPECT_FALSE(refused(moments));
  for (double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -1.0}) {
    std::vector<double> broken = moments;
    broken[5 * kDim + 5] = bad;
    EXPECT_TRUE(refused(broken)) << bad;
  }
  std::vector<double> lopsided = moments;
  lopsided[3] = 0.5;
  EXPECT_TRUE(refused(lopsided));
}

}  // namespace
}  // namespace quire

#include "core/codec/rotation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <random>
#include <vector>

#include "core/codec/codebook.h"

namespace quire {
namespace {

uint64_t SplitMix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// R as a dense matrix in double, straight from its definition.
std::vector<double> Dense(uint32_t dim, uint64_t seed) {
  uint32_t p = dim & (0u - dim), q = dim / p;
  std::vector<double> m(dim * dim), out(dim * dim);
  auto sign = [&](int round, uint32_t i) {
    uint64_t g = 0x9E3779B97F4A7C15u;
    return SplitMix(SplitMix(seed + g) + (16 * round + i / 64 + 1) * g) >> (i % 64) & 1 ? -1.0 : 1.0;
  };
  for (uint32_t i = 0; i < dim; ++i) {
    for (uint32_t j = 0; j < dim; ++j) {
      double angle = 2 * std::numbers::pi * (i / p) * (j / p) / q;
      double hartley = q == 1 ? 1 : (std::cos(angle) + std::sin(angle)) / std::sqrt(q);
      m[i * dim + j] = hartley * (__builtin_popcount((i % p) & (j % p)) % 2 ? -1 : 1) / std::sqrt(p);
    }
  }
  for (uint32_t i = 0; i < dim; ++i) {
    for (uint32_t k = 0; k < dim; ++k) {
      double left = m[i * dim + k] * sign(1, k);
      for (uint32_t j = 0; j < dim; ++j) out[i * dim + j] += left * m[k * dim + j] * sign(0, j);
    }
  }
  return out;
}

TEST(RotationTest, IsTheDefinedMatrixForEveryDim) {
  for (uint32_t dim = kMinCodecDim; dim <= kMaxCodecDim; dim += kCodecDimStep) {
    Rotation rotation(dim, 7 + dim);
    std::vector<double> dense = Dense(dim, 7 + dim);
    for (uint32_t column : {0u, 1u, dim / 3, dim - 1}) {
      std::vector<float> x(dim, 0.0f), y;
      x[column] = 1;
      y = x;
      rotation.Apply(y.data());
      for (uint32_t i = 0; i < dim; ++i)
        ASSERT_NEAR(y[i], dense[i * dim + column], 2e-6) << dim << " " << i << " " << column;
      rotation.ApplyTransposed(y.data());
      for (uint32_t i = 0; i < dim; ++i) ASSERT_NEAR(y[i], x[i], 2e-6) << dim;
    }
  }
}

TEST(RotationTest, OrthogonalForEveryDim) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (uint32_t dim = kMinCodecDim; dim <= kMaxCodecDim; dim += kCodecDimStep) {
    Rotation rotation(dim, 99);
    for (int trial = 0; trial < 4; ++trial) {
      std::vector<float> a(dim), b(dim);
      for (float& x : a) x = normal(random);
      for (float& x : b) x = normal(random);
      auto dot = [&] {
        double sum = 0;
        for (uint32_t i = 0; i < dim; ++i) sum += double{a[i]} * b[i];
        return sum;
      };
      double before = dot();
      rotation.Apply(a.data());
      rotation.Apply(b.data());
      EXPECT_NEAR(dot(), before, 1e-5 * dim);
    }
  }
}

TEST(RotationTest, BlocksAndSingleVectorsAreBitEqual) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  for (uint32_t dim : {16u, 48u, 64u, 80u, 96u, 128u, 560u, 576u}) {
    Rotation rotation(dim, 1);
    std::vector<float> block(dim * 64);
    for (float& x : block) x = normal(random);
    std::vector<float> start = block;
    rotation.ApplyBlock(block.data());
    std::vector<float> back = block;
    rotation.ApplyTransposedBlock(back.data());
    for (uint32_t t : {0u, 17u, 63u}) {
      std::vector<float> x(dim);
      for (uint32_t c = 0; c < dim; ++c) x[c] = start[c * 64 + t];
      rotation.Apply(x.data());
      for (uint32_t c = 0; c < dim; ++c) ASSERT_EQ(x[c], block[c * 64 + t]);
      rotation.ApplyTransposed(x.data());
      for (uint32_t c = 0; c < dim; ++c) ASSERT_EQ(x[c], back[c * 64 + t]);
    }
  }
}

TEST(RotationTest, SpreadsOneHotVectors) {
  for (uint32_t dim : {64u, 80u, 96u, 128u, 240u, 256u, 576u}) {
    Rotation rotation(dim, 5);
    for (uint32_t channel = 0; channel < dim; channel += 7) {
      std::vector<float> x(dim, 0.0f);
      x[channel] = 1;
      rotation.Apply(x.data());
      float largest = 0;
      for (float v : x) largest = std::max(largest, std::fabs(v));
      EXPECT_LT(largest * std::sqrt(static_cast<float>(dim)), 6.0f) << dim << " " << channel;
    }
  }
}

TEST(RotationTest, SeedsDiffer) {
  std::vector<float> a(128, 1.0f), b(128, 1.0f);
  Rotation(128, 1).Apply(a.data());
  Rotation(128, 2).Apply(b.data());
  EXPECT_NE(a, b);
}

}  // namespace
}  // namespace quire

// What of cuda/ needs no GPU: the constants that the kernels are given.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

#include "core/base/float16.h"
#include "core/codec/rotation.h"
#include "cuda/tq_tables.h"

namespace quire::cuda {
namespace {

constexpr uint32_t kFastDims[] = {64, 80, 96, 128, 192, 256};

float Half(uint32_t pair) { return FromF16(static_cast<uint16_t>(pair)); }

TEST(TablesTest, FragmentColumnsAreAPermutationOfChannels) {
  for (uint32_t dim = kMinCodecDim; dim <= kMaxCodecDim; dim += kCodecDimStep) {
    std::set<uint32_t> channels;
    for (uint32_t column = 0; column < dim; ++column)
      channels.insert(FragmentChannel(dim, column / 8, column % 8));
    EXPECT_EQ(channels.size(), dim);
    EXPECT_EQ(*channels.rbegin(), dim - 1);
  }
}

float Round(float x) { return FromF16(ToF16(x)); }

// As the kernels do it.
int Magnitude(const FastEncodeTable& table, int bits, float u) {
  u = Round(u);
  float f = Half(table.index[bits - 2][0]);
  for (int k = 1; k < 5; ++k) f = Round(f * u + Half(table.index[bits - 2][k]));
  f = std::fmin(std::fmax(f, 0.0f), 1.0f);
  return ToF16(Round(f * kIndexScale + 1032)) & table.mask[bits - 2] & 0xFF;
}

TEST(TablesTest, IndexPolynomialsRiseToTheEnd) {
  for (uint32_t dim : kFastDims) {
    FastEncodeTable table = MakeFastEncodeTable(dim);
    for (int bits = 2; bits <= 4; ++bits) {
      float last = static_cast<float>(Codebook::Get(dim, bits).thresholds().back());
      for (float u = last + 0.01f; u < 17; u += 0.01f) {
        ASSERT_EQ(Magnitude(table, bits, u), static_cast<int>(table.mask[bits - 2] & 0xFF))
            << "d " << dim << " bits " << bits << " u " << u;
      }
    }
  }
}

TEST(TablesTest, IndexPolynomialsFindTheCells) {
  std::mt19937 engine(1);
  std::normal_distribution<float> normal;
  for (uint32_t dim : kFastDims) {
    FastEncodeTable table = MakeFastEncodeTable(dim);
    for (int bits = 2; bits <= 4; ++bits) {
      const Codebook& book = Codebook::Get(dim, bits);
      int different = 0, count = 200000;
      for (int i = 0; i < count; ++i) {
        float u = std::fabs(normal(engine));
        int cell = 0;
        for (float threshold : book.float_thresholds()) cell += threshold < u;
        int magnitude = Magnitude(table, bits, u);
        EXPECT_LE(std::abs((magnitude >> (4 - bits)) - cell), 1);
        different += magnitude >> (4 - bits) != cell;
      }
      EXPECT_LE(different, count * 0.003) << "d " << dim << " bits " << bits;
    }
  }
}

TEST(TablesTest, ImagesHoldTheRotation) {
  for (uint32_t dim : kFastDims) {
    Rotation rotation(dim, 5);
    std::vector<uint16_t> encode = EncodeImage(dim, 5, DType::kBf16), decode = DecodeImage(dim, 5);
    std::mt19937 engine(dim);
    std::normal_distribution<float> normal;
    std::vector<float> x(dim), y(dim);
    for (float& v : x) v = FromBf16(ToBf16(normal(engine)));
    y = x;
    rotation.Apply(y.data());
    auto at = [&](const std::vector<uint16_t>& image, size_t pass, uint32_t n, uint32_t k) {
      return image[pass * dim * dim + n / 8 * 64 + k / 8 * 8 * dim + n % 8 * 8 + k % 8];
    };
    for (uint32_t n = 0; n < dim; ++n) {
      float sum = 0;
      for (int pass = 0; pass < EncodePasses(dim); ++pass) {
        for (uint32_t k = 0; k < dim; ++k) sum += FromBf16(at(encode, pass, n, k)) * x[k];
      }
      EXPECT_NEAR(sum, y[FragmentChannel(dim, n / 8, n % 8)], 2e-4);
    }
    for (uint32_t n = 0; n < dim; ++n) {
      float sum = 0;
      for (uint32_t k = 0; k < dim; ++k)
        sum += FromF16(at(decode, 0, n, k)) * y[FragmentChannel(dim, k / 8, k % 8)];
      EXPECT_NEAR(sum, x[FragmentChannel(dim, n / 8, n % 8)], 4e-3);
    }
  }
}

}  // namespace
}  // namespace quire::cuda

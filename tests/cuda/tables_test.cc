// What of cuda/ needs no GPU: the constants that the kernels are given.
#include <gtest/gtest.h>

#include <algorithm>
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

// As the kernels do it: the magnitude's cell, 3 bits of which the last ones may be noise.
int Magnitude(const FastEncodeTable& table, int bits, float z) {
  const auto& index = table.index[bits - 2];
  z = Round(z);
  float square = Round(z * z), f = Round(Half(index[0]) * square + Half(index[1]));
  f = Round(f * square + Half(index[2]));
  f = std::fmin(std::fmax(Round(z * f + 0.5f), 0.0f), 1.0f);
  int cell = ToF16(Round(f * 15 + 1152)) - ToF16(1152);
  return cell < 8 ? 7 - cell : cell - 8;
}

TEST(TablesTest, IndexPolynomialsRiseToTheEnd) {
  for (uint32_t dim : kFastDims) {
    FastEncodeTable table = MakeFastEncodeTable(dim);
    for (int bits = 2; bits <= 4; ++bits) {
      float last = static_cast<float>(Codebook::Get(dim, bits).thresholds().back());
      for (float u = last + 0.01f; u < 17; u += 0.01f) {
        for (float z : {u, -u})
          ASSERT_EQ(Magnitude(table, bits, z) >> (4 - bits), (1 << (bits - 1)) - 1)
              << "d " << dim << " bits " << bits << " z " << z;
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
        float z = normal(engine);
        int cell = 0;
        for (float threshold : book.float_thresholds()) cell += threshold < std::fabs(z);
        int found = Magnitude(table, bits, z) >> (4 - bits);
        EXPECT_LE(std::abs(found - cell), 1);
        different += found != cell;
      }
      EXPECT_LE(different, count * 0.003) << "d " << dim << " bits " << bits;
    }
  }
}

// What the kernel makes of counts and sums beside what it means.
TEST(TablesTest, LevelsAddUp) {
  for (int bits = 2; bits <= 4; ++bits) {
    const Codebook& book = Codebook::Get(128, bits);
    const FastEncodeTable::Levels& levels = MakeFastEncodeTable(128).levels[bits - 2];
    for (uint32_t m = 0; m < 8; ++m) {
      bool b2 = m & 4, b1 = m & 2, b0 = m & 1;
      bool sets[] = {true, b2, b1, b2 && b1, b0, b2 && b0, b1 && b0, b2 && b1 && b0};
      bool from[] = {true, m >= 2, m >= 4, m >= 6};
      for (int level = 0; level < 3; ++level) {
        int kept = std::min(bits, 2 + level);
        double c = book.merged_centroids(kept)[m >> (4 - kept)], square = 0, along = 0;
        for (int i = 0; i < 8; ++i) square += sets[i] ? levels.square[level][i] : 0;
        EXPECT_NEAR(square, c * c, 4e-3 * c * c);
        if (level == 2) continue;
        for (int i = 0; i < 4; ++i) along += from[i] ? levels.along[level][i] : 0;
        EXPECT_NEAR(along, c, 1e-6);
      }
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

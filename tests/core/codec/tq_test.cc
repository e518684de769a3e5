// The quantiser against the codebooks' theory, and its scales, mean and corrections against their definitions
// in double.
#include "core/codec/tq.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "core/base/float16.h"
#include "core/codec/rotation.h"

namespace quire {
namespace {

std::vector<float> Gaussian(uint32_t dim, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> y(dim * 64);
  for (float& x : y) x = normal(random);
  return y;
}

// Random directions, rotated, quantised with the exact norm and no mean: E‖x−x̂‖²/‖x‖² is the table's.
TEST(TqTest, DirectionsHaveTheTablesError) {
  for (uint32_t dim : {64u, 80u, 128u, 256u, 576u}) {
    Rotation rotation(dim, 11);
    for (int bits = 1; bits <= 6; ++bits) {
      const Codebook& book = Codebook::Get(dim, bits);
      double error = 0;
      size_t vectors = 0;
      std::vector<uint8_t> codes(dim * 64);
      for (uint32_t block = 0; block < 400000 / (64 * dim) + 12; ++block) {
        std::vector<float> y = Gaussian(dim, 1000 + block);
        rotation.ApplyBlock(y.data());
        float inverse[64];
        double norms[64];
        for (uint32_t t = 0; t < 64; ++t) {
          double square = 0;
          for (uint32_t c = 0; c < dim; ++c) square += double{y[c * 64 + t]} * y[c * 64 + t];
          norms[t] = square;
          inverse[t] = static_cast<float>(std::sqrt(dim / square));
        }
        TqIndex(book, y.data(), inverse, codes.data());
        for (uint32_t t = 0; t < 64; ++t) {
          double miss = 0, scale = std::sqrt(norms[t] / dim);
          for (uint32_t c = 0; c < dim; ++c)
            miss += std::pow(y[c * 64 + t] - scale * book.table(bits)[codes[c * 64 + t]], 2);
          error += miss / norms[t];
          ++vectors;
        }
      }
      EXPECT_NEAR(error / vectors, book.mse(), 0.01 * book.mse()) << "d=" << dim << " b=" << bits;
    }
  }
}

TEST(TqTest, IndicesFollowTheRuleAtThresholds) {
  for (int bits : {1, 2, 3, 4, 5, 8}) {
    const Codebook& book = Codebook::Get(16, bits);
    std::vector<float> y(16 * 64, 0.0f);
    std::vector<float> inverse(64, 1.0f);
    std::mt19937 random(bits);
    for (float& x : y) {
      const auto& t = book.float_thresholds();
      float magnitude = t.empty() ? 0.5f : t[random() % t.size()];
      switch (random() % 4) {
        case 0:
          magnitude = std::nextafter(magnitude, 9.0f);
          break;
        case 1:
          magnitude = std::nextafter(magnitude, 0.0f);
          break;
        case 2:
          magnitude = static_cast<float>(random() % 5000) / 1000;
          break;
        default:
          break;  // on the threshold itself: the lower cell
      }
      x = random() % 2 ? -magnitude : magnitude;
    }
    std::vector<uint8_t> codes(y.size());
    TqIndex(book, y.data(), inverse.data(), codes.data());
    for (size_t i = 0; i < y.size(); ++i) {
      unsigned cell = 0;
      for (float t : book.float_thresholds()) cell += t < std::fabs(y[i]);
      ASSERT_EQ(codes[i], cell | (y[i] < 0 ? 1u << (bits - 1) : 0u)) << bits << " " << y[i];
    }
  }
}

struct Decoded {
  std::vector<double> y;  // without the mean
  std::vector<float> mean, scales;
};

Decoded DecodeKey(const Codebook& book, int levels, const TqKey& key) {
  Decoded out;
  out.mean.resize(book.dim());
  out.scales.resize(64);
  TqKeyMean(book.dim(), key, out.mean.data());
  TqKeyScales(book, levels, key, out.scales.data());
  int kept = KeptBits(book.bits(), levels - 1);
  for (uint32_t c = 0; c < book.dim(); ++c) {
    for (uint32_t t = 0; t < 64; ++t)
      out.y.push_back(double{out.scales[t]} *
                      book.table(kept)[key.codes[c * 64 + t] >> (book.bits() - kept)]);
  }
  return out;
}

TEST(TqTest, KeyScalesAreUnbiasedAtEveryLevel) {
  for (uint32_t dim : {64u, 80u, 128u}) {
    for (int bits : {2, 3, 4, 6, 8}) {
      const Codebook& book = Codebook::Get(dim, bits);
      std::vector<float> y = Gaussian(dim, dim + bits);
      for (uint32_t c = 0; c < dim; ++c) {
        for (uint32_t t = 0; t < 64; ++t) y[c * 64 + t] += c % 5;  // a mean to remove
      }
      std::vector<float> original = y, work(y.size());
      TqKey key;
      ASSERT_EQ(EncodeTqKey(book, 0, 0, y.data(), work.data(), &key), -1);
      for (int levels = 1; levels <= kTqLevels; ++levels) {
        if (!HasLevel(bits, levels - 1)) continue;
        Decoded d = DecodeKey(book, levels, key);
        for (uint32_t t = 0; t < 64; ++t) {
          double yy = 0, yh = 0;
          for (uint32_t c = 0; c < dim; ++c) {
            double x = original[c * 64 + t] - double{d.mean[c]};
            yy += x * x;
            yh += x * d.y[c * 64 + t];
          }
          // bf16 has 8 bits of mantissa; a correction ends within half a step of 2^-10.
          EXPECT_NEAR(yh / yy, 1.0, levels == 1 ? 4e-3 : 6e-4)
              << dim << " " << bits << " " << levels << " " << t;
        }
      }
    }
  }
}

TEST(TqTest, MeanIsTheChannelsMeanToHalfAStep) {
  const Codebook& book = Codebook::Get(64, 4);
  std::vector<float> y = Gaussian(64, 5), work(y.size());
  for (uint32_t t = 0; t < 64; ++t) y[3 * 64 + t] += 600;
  for (uint32_t first : {0u, 4u}) {
    std::vector<float> used = y;
    for (uint32_t c = 0; c < 64; ++c) std::fill_n(used.begin() + c * 64, first, 0.0f);
    std::vector<float> original = used;
    TqKey key;
    ASSERT_EQ(EncodeTqKey(book, 0, first, used.data(), work.data(), &key), -1);
    double step = FromBf16(key.mean_step);
    EXPECT_NEAR(step, 600 / 127.0, 0.05);
    for (uint32_t c = 0; c < 64; ++c) {
      double mean = 0;
      for (uint32_t t = first; t < 64; ++t) mean += original[c * 64 + t] / (64.0 - first);
      EXPECT_NEAR(key.mean[c] * step, mean, step * (c == 3 ? 0.6 : 0.501));
    }
  }
}

TEST(TqTest, ValueScalesAreLeastSquares) {
  for (int bits : {2, 4, 5, 8}) {
    const Codebook& book = Codebook::Get(96, bits);
    std::vector<float> y = Gaussian(96, 40 + bits), work(y.size());
    for (uint32_t c = 0; c < 96; ++c) {
      for (uint32_t t = 0; t < 64; ++t) y[c * 64 + t] *= std::exp2(-static_cast<float>(t) / 8);  // 8 octaves
    }
    std::vector<float> original = y;
    TqValue value;
    ASSERT_EQ(EncodeTqValue(book, 0, 0, y.data(), work.data(), &value), -1);
    std::vector<float> scales(64);
    TqValueScales(book, kTqLevels, value, scales.data());
    for (uint32_t t = 0; t < 64; ++t) {
      double yc = 0, cc = 0;
      for (uint32_t c = 0; c < 96; ++c) {
        double centroid = book.table(bits)[value.codes[c * 64 + t]];
        yc += original[c * 64 + t] * centroid;
        cc += centroid * centroid;
      }
      EXPECT_NEAR(scales[t] / (yc / cc), 1.0, bits > 4 ? 6e-4 : 0.023) << bits << " " << t;
    }
  }
}

TEST(TqTest, MeasuredErrorsAreTheDecodersErrors) {
  for (int bits : {2, 3, 4, 8}) {
    const Codebook& book = Codebook::Get(128, bits);
    std::vector<float> y = Gaussian(128, 7), work(y.size()), original = y;
    TqKey key;
    ASSERT_EQ(EncodeTqKey(book, 1, 0, y.data(), work.data(), &key), -1);
    for (int levels = 1; levels <= kTqLevels; ++levels) {
      Decoded d = DecodeKey(book, levels, key);
      double error = 0, energy = 0;
      for (size_t i = 0; i < original.size(); ++i) {
        error += std::pow(original[i] - d.mean[i / 64] - d.y[i], 2);
        energy += double{original[i]} * original[i];
      }
      EXPECT_NEAR(key.measured.error[levels - 1], error, 1e-4 * error) << bits << " " << levels;
      EXPECT_NEAR(key.measured.energy, energy, 1e-5 * energy);
    }
  }
}

// A code cut short is about as good as a native one (V, whose error the table knows; the mean squared error
// of merged cells).
TEST(TqTest, TruncatedErrorIsNearTheTables) {
  for (uint32_t dim : {64u, 128u, 256u}) {
    for (int bits : {3, 4, 8}) {
      const Codebook& book = Codebook::Get(dim, bits);
      double error[kTqLevels] = {}, energy = 0;
      for (uint32_t block = 0; block < 24; ++block) {
        std::vector<float> y = Gaussian(dim, 100 + block), work(y.size());
        TqValue value;
        ASSERT_EQ(EncodeTqValue(book, 0, 0, y.data(), work.data(), &value), -1);
        for (int level = 0; level < kTqLevels; ++level) error[level] += value.measured.error[level];
        energy += value.measured.energy;
      }
      for (int level = 0; level < kTqLevels; ++level) {
        double table = book.truncated_mse(KeptBits(bits, level));
        double slack = 2e-4;  // the logarithmic scale's own error, half a sixteenth of an octave, where it is
                              // not corrected
        EXPECT_NEAR(error[level] / energy, table, 0.03 * table + (KeptBits(bits, level) > 4 ? 1e-6 : slack))
            << dim << " " << bits << " " << level;
      }
    }
  }
}

TEST(TqTest, EffortLowersTheErrorOfV) {
  const Codebook& book = Codebook::Get(64, 3);
  double error[4] = {};
  for (int effort = 0; effort <= 3; ++effort) {
    for (uint32_t block = 0; block < 8; ++block) {
      std::vector<float> y = Gaussian(64, 300 + block), work(y.size());
      TqValue value;
      ASSERT_EQ(EncodeTqValue(book, effort, 0, y.data(), work.data(), &value), -1);
      error[effort] += value.measured.error[kTqLevels - 1];
    }
  }
  EXPECT_LT(error[1], error[0]);
  EXPECT_LE(error[3], error[1]);
}

TEST(TqTest, ZeroAndTinyVectorsAreZeroBits) {
  for (float tiny : {0.0f, 1e-40f, 1e-30f}) {
    std::vector<float> y = Gaussian(64, 9), work(y.size());
    for (uint32_t c = 0; c < 64; ++c) y[c * 64 + 10] = c % 2 ? tiny : -tiny;
    TqValue value;
    ASSERT_EQ(EncodeTqValue(Codebook::Get(64, 4), 2, 0, y.data(), work.data(), &value), -1);
    EXPECT_EQ(value.scale_codes[10], kZeroScaleCode);
    EXPECT_NE(value.scale_codes[11], kZeroScaleCode);
    for (uint32_t c = 0; c < 64; ++c) EXPECT_EQ(value.codes[c * 64 + 10], 0);

    std::vector<float> same(64 * 64, tiny);
    TqKey key;
    ASSERT_EQ(EncodeTqKey(Codebook::Get(64, 4), 2, 0, same.data(), work.data(), &key), -1);
    for (uint32_t t = 0; t < 64; ++t) EXPECT_EQ(key.scales[t], 0);
    for (uint8_t code : key.codes) ASSERT_TRUE(code == 0 || &code >= key.codes.data() + 64 * 64);
  }
}

TEST(TqTest, NotFiniteIsReportedByToken) {
  for (float bad : {NAN, INFINITY, -INFINITY, 3e38f}) {
    std::vector<float> y = Gaussian(64, 9), work(y.size());
    y[5 * 64 + 33] = bad;
    std::vector<float> again = y;
    TqKey key;
    TqValue value;
    EXPECT_EQ(EncodeTqKey(Codebook::Get(64, 4), 0, 0, y.data(), work.data(), &key), 33);
    EXPECT_EQ(EncodeTqValue(Codebook::Get(64, 4), 0, 0, again.data(), work.data(), &value), 33);
  }
}

}  // namespace
}  // namespace quire

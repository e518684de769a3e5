// fp8 on every kernel target against e4m3 spelled out: all 254 values, nearest by search, ties by the even
// code.
#include "core/codec/fp8.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "core/base/float16.h"
#include "tests/core/codec/each_target.h"

namespace quire {
namespace {

class Fp8Test : public EachTargetTest {};

INSTANTIATE_TEST_SUITE_P(Targets, Fp8Test, ::testing::ValuesIn(RunnableTargets()), TargetTestName);

// Magnitudes of codes 0…126, ascending.
double Magnitude(int code) {
  int exponent = code >> 3, mantissa = code & 7;
  return exponent == 0 ? mantissa / 512.0 : (1 + mantissa / 8.0) * std::exp2(exponent - 7);
}

uint8_t NearestCode(double v) {
  double magnitude = std::fabs(v);
  int best = 0;
  for (int code = 1; code <= 126; ++code) {
    double miss = std::fabs(Magnitude(code) - magnitude), least = std::fabs(Magnitude(best) - magnitude);
    if (miss < least || (miss == least && code % 2 == 0)) best = code;
  }
  return static_cast<uint8_t>(best | (std::signbit(v) ? 0x80 : 0));
}

// The greatest bf16 that is not above max/448 (as a float).
float ScaleFor(float most) {
  float scale = most / 448.0f;
  if (scale < std::exp2(-100.0f)) return 0;
  uint16_t bits = ToBf16(scale);
  while (FromBf16(bits) > scale) --bits;
  return FromBf16(bits);
}

struct Coded {
  std::array<uint16_t, 64> scales;
  std::vector<uint8_t> codes;
  Fp8Error measured;
};

Coded Encode(uint32_t dim, const HeadRows& rows, uint32_t first = 0) {
  Coded coded;
  coded.scales.fill(0xEEEE);
  coded.codes.assign(64 * dim, 0xEE);
  EXPECT_EQ(EncodeFp8Head(dim, first, rows, coded.scales.data(), coded.codes.data(), &coded.measured), -1);
  return coded;
}

TEST_P(Fp8Test, CodesAndRowsAreTheDefinitions) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (DType dtype : {DType::kF32, DType::kBf16, DType::kF16}) {
    for (uint32_t dim : {16u, 48u, 64u, 80u, 128u, 576u}) {
      for (uint32_t first : {0u, 4u}) {
        SCOPED_TRACE(testing::Message() << Name(dtype) << " d=" << dim << " first=" << first);
        const uint32_t stride = dim + 3;
        std::vector<uint8_t> tensor(64 * stride * 4, 0x7F), out(tensor.size(), 0x55);
        for (uint32_t t = 0; t < 64; ++t) {
          // Wide spreads, so that e4m3's subnormals come up.
          for (uint32_t c = 0; c < dim; ++c)
            StoreElement(
                dtype, tensor.data(), t * stride + c,
                t % 7 == 5 ? 0.0f : normal(random) * std::exp2(-static_cast<float>(random() % (t % 16 + 1))));
        }
        Coded coded = Encode(dim, {tensor.data(), dtype, stride}, first);
        DecodeFp8Head(dim, first, coded.scales.data(), coded.codes.data(), {out.data(), dtype, stride});
        double energy = 0, error = 0;
        for (uint32_t t = 0; t < 64; ++t) {
          float most = 0;
          for (uint32_t c = 0; c < dim; ++c)
            most = std::max(most, std::fabs(LoadElement(dtype, tensor.data(), t * stride + c)));
          float scale = t < first ? 0.0f : ScaleFor(most);
          ASSERT_EQ(FromBf16(coded.scales[t]), scale) << t;
          for (uint32_t c = 0; c < dim; ++c) {
            float x = LoadElement(dtype, tensor.data(), t * stride + c);
            uint8_t code = coded.codes[t * dim + c];
            ASSERT_EQ(code, scale == 0 ? 0 : NearestCode(x / scale)) << t << " " << c << " " << x;
            if (t < first) continue;
            double value = scale * Magnitude(code & 127) * (code & 128 ? -1 : 1);
            energy += double{x} * x;
            error += std::pow(x - value, 2);
            uint32_t rounded = 0;
            StoreElement(dtype, &rounded, 0, static_cast<float>(value));
            ASSERT_EQ(LoadElement(dtype, out.data(), t * stride + c), LoadElement(dtype, &rounded, 0))
                << t << " " << c;
          }
        }
        EXPECT_NEAR(coded.measured.energy, energy, 1e-6 * energy);
        EXPECT_NEAR(coded.measured.error, error, 1e-6 * error);
        // Nothing is written beside the rows or for sinks.
        uint32_t untouched = 0;
        std::memset(&untouched, 0x55, 4);
        EXPECT_EQ(LoadElement(dtype, out.data(), dim), LoadElement(dtype, &untouched, 0));
        if (first > 0) {
          EXPECT_EQ(LoadElement(dtype, out.data(), 3 * stride), LoadElement(dtype, &untouched, 0));
        }
      }
    }
  }
}

// Every value, every midpoint of two, and their neighbours, at scale 1.
TEST_P(Fp8Test, EveryRoundingIsToNearestEven) {
  std::vector<float> probes;
  for (int code = 0; code < 126; ++code) {
    float low = static_cast<float>(Magnitude(code)),
          middle = static_cast<float>((Magnitude(code) + Magnitude(code + 1)) / 2);
    for (float x : {low, middle}) {
      for (float probe : {x, std::nextafter(x, 1000.0f), std::nextafter(x, -1000.0f)}) {
        probes.push_back(probe);
        probes.push_back(-probe);
      }
    }
  }
  probes.push_back(448);
  for (float tiny : {1e-3f, 0x1p-10f, 0x1.000002p-10f, 0x1p-11f, 1e-30f, 1e-42f}) probes.push_back(tiny);
  std::vector<float> rows(64 * 64, 0.0f);
  ASSERT_LT(probes.size(), 64u * 63u);
  for (size_t i = 0; i < probes.size(); ++i) rows[i / 63 * 64 + i % 63 + 1] = probes[i];
  for (uint32_t t = 0; t < 64; ++t) rows[t * 64] = 448;
  Coded coded = Encode(64, {rows.data(), DType::kF32, 64});
  for (size_t i = 0; i < rows.size(); ++i) {
    ASSERT_EQ(coded.scales[i / 64], ToBf16(1.0f));
    ASSERT_EQ(coded.codes[i], NearestCode(rows[i])) << rows[i];
  }
}

// All codes are decoded, also those an encoder never writes for a value (−0).
TEST_P(Fp8Test, EveryCodeHasItsValue) {
  std::vector<uint8_t> codes(64 * 256);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>((i & 127) == 127 ? 0 : i);
  std::vector<uint16_t> scales(64, ToBf16(2.0f));
  std::vector<float> out(codes.size());
  DecodeFp8Head(256, 0, scales.data(), codes.data(), {out.data(), DType::kF32, 256});
  for (size_t i = 0; i < codes.size(); ++i)
    ASSERT_EQ(out[i], 2 * Magnitude(codes[i] & 127) * (codes[i] & 128 ? -1 : 1)) << int{codes[i]};
}

// What fits a dtype decodes to something that fits it.
TEST_P(Fp8Test, NothingOverflows) {
  for (DType dtype : {DType::kF32, DType::kBf16, DType::kF16}) {
    float most = dtype == DType::kF16    ? 65504.0f
                 : dtype == DType::kBf16 ? 0x1.FEp127f
                                         : std::numeric_limits<float>::max();
    std::mt19937 random(5);
    std::vector<uint8_t> tensor(64 * 64 * 4), out(tensor.size());
    for (size_t i = 0; i < 64 * 64; ++i)
      StoreElement(dtype, tensor.data(), i,
                   (random() % 2 ? -most : most) / static_cast<float>(1 + i / 64 * (random() % 3)));
    Coded coded = Encode(64, {tensor.data(), dtype, 64});
    DecodeFp8Head(64, 0, coded.scales.data(), coded.codes.data(), {out.data(), dtype, 64});
    for (size_t i = 0; i < 64 * 64; ++i) {
      ASSERT_NE(coded.codes[i] & 127, 127);
      float x = LoadElement(dtype, tensor.data(), i), y = LoadElement(dtype, out.data(), i);
      ASSERT_TRUE(std::isfinite(y));
      ASSERT_NEAR(y / most, x / most, 0.033) << Name(dtype);
    }
    EXPECT_TRUE(std::isfinite(coded.measured.error / coded.measured.energy));
    EXPECT_LT(coded.measured.error / coded.measured.energy, 1e-3);
  }
}

TEST_P(Fp8Test, TinyVectorsAreZeroBits) {
  for (float tiny : {0.0f, -0.0f, 1e-42f, 1e-30f}) {
    std::vector<float> rows(64 * 64, tiny), out(64 * 64, 9.0f);
    Coded coded = Encode(64, {rows.data(), DType::kF32, 64});
    for (uint16_t scale : coded.scales) ASSERT_EQ(scale, 0);
    for (uint8_t code : coded.codes) ASSERT_EQ(code, 0);
    DecodeFp8Head(64, 0, coded.scales.data(), coded.codes.data(), {out.data(), DType::kF32, 64});
    for (float x : out) ASSERT_EQ(x, 0);
    EXPECT_EQ(coded.measured.error, coded.measured.energy);
  }
}

TEST_P(Fp8Test, NotFiniteIsReportedByToken) {
  const float kInfinity = std::numeric_limits<float>::infinity();
  for (DType dtype : {DType::kF32, DType::kBf16, DType::kF16}) {
    for (float bad : {std::nanf(""), -std::nanf(""), kInfinity, -kInfinity}) {
      std::vector<uint8_t> tensor(64 * 80 * 4, 0);
      StoreElement(dtype, tensor.data(), 33 * 80 + 79, bad);
      StoreElement(dtype, tensor.data(), 50 * 80, bad);
      std::array<uint16_t, 64> scales;
      std::vector<uint8_t> codes(64 * 80);
      Fp8Error measured;
      HeadRows rows{tensor.data(), dtype, 80};
      EXPECT_EQ(EncodeFp8Head(80, 0, rows, scales.data(), codes.data(), &measured), 33);
      EXPECT_EQ(EncodeFp8Head(80, 34, rows, scales.data(), codes.data(), &measured), 50);
      EXPECT_EQ(EncodeFp8Head(80, 51, rows, scales.data(), codes.data(), &measured), -1);
    }
  }
}

}  // namespace
}  // namespace quire

#include "core/base/float16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace quire {
namespace {

// Every half and bf16 value survives the way up and back.
TEST(Float16, AllPatternsRoundTrip) {
  for (uint32_t i = 0; i < 65536; ++i) {
    auto bits = static_cast<uint16_t>(i);
    float half = FromF16(bits), brain = FromBf16(bits);
    if (std::isnan(half)) {
      EXPECT_TRUE(std::isnan(FromF16(ToF16(half))));
    } else {
      ASSERT_EQ(ToF16(half), bits) << std::hex << i;
    }
    if (std::isnan(brain)) {
      EXPECT_TRUE(std::isnan(FromBf16(ToBf16(brain))));
    } else {
      ASSERT_EQ(ToBf16(brain), bits) << std::hex << i;
    }
  }
}

// Against the compiler's own half type, at and beside every rounding boundary.
TEST(Float16, RoundsLikeTheCompiler) {
  for (uint32_t i = 0; i < 0x7C00; ++i) {
    float low = FromF16(static_cast<uint16_t>(i)), high = FromF16(static_cast<uint16_t>(i + 1));
    if (std::isinf(high)) high = 65536.0f;
    float middle = low + (high - low) / 2;
    for (float x : {std::nextafter(middle, 0.0f), middle, std::nextafter(middle, 1e9f)}) {
      auto expected = static_cast<_Float16>(x);
      ASSERT_EQ(ToF16(x), std::bit_cast<uint16_t>(expected)) << x;
    }
  }
}

TEST(Float16, Bf16RoundsHalfToEven) {
  EXPECT_EQ(ToBf16(1.0f + 0x1p-8f), 0x3F80);
  EXPECT_EQ(ToBf16(1.0f + 0x3p-8f), 0x3F82);
  EXPECT_EQ(ToBf16(std::numeric_limits<float>::max()), 0x7F80);
  EXPECT_EQ(ToBf16(-std::numeric_limits<float>::infinity()), 0xFF80);
}

}  // namespace
}  // namespace quire

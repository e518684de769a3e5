// Fragment order: a bit-by-bit oracle written from core/block/README.md's formulas, byte-exact for d = 128
// after evidence of the prototypes' record, and every other d.
#include "core/codec/planes.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>
#include <vector>

#include "core/codec/codebook.h"

namespace quire {
namespace {

struct Place {
  size_t byte;
  int bit;  // of the two-bit plane: the magnitude's first bit; the sign is the next bit
  friend bool operator<(const Place& a, const Place& b) {
    return std::pair(a.byte, a.bit) < std::pair(b.byte, b.bit);
  }
};

// The lane and (unit, j) of a code.
struct Seat {
  uint32_t lane, unit, j;
};

Seat KeySeat(uint32_t dim, uint32_t token, uint32_t channel) {
  uint32_t m = token / 16, r = token / 8 % 2, g = token % 8, whole = dim / 32;
  if (channel < whole * 32) return {32 * m + 4 * g + channel % 32 / 8, r * whole + channel / 32, channel % 8};
  return {32 * m + 4 * g + channel % 32 / 4, dim / 16 - 1, 4 * r + channel % 4};
}

Seat ValueSeat(uint32_t dim, uint32_t token, uint32_t channel) {
  uint32_t m = token / 16, t = token % 8 / 2, low_j = token % 2 + 2 * (token / 8 % 2);
  bool alone = dim % 32 == 16 && channel >= dim - 16;
  uint32_t within = alone ? channel % 16 : channel % 32;
  uint32_t unit = 2 * (channel / 32), g_high, high_j, g_low = within % 2;
  if (alone) {
    g_high = within / 4;
    high_j = within / 2 % 2;
  } else {
    g_high = within / 8;
    unit += within / 4 % 2;
    high_j = within / 2 % 2;
  }
  return {32 * m + 4 * (2 * g_high + g_low) + t, unit, low_j + 4 * high_j};
}

// Where a one-bit plane (width 1) or the two-bit plane (width 2) holds a seat.
Place PlaceOf(uint32_t dim, Seat s, size_t width) {
  uint32_t fours = dim / 64;
  if (s.unit < fours * 4) {
    size_t group = (s.lane * fours + s.unit / 4) * 4 * width;
    uint32_t i = s.unit % 4;
    int bit = width == 2 ? 32 * (i / 2) + 4 * s.j + 2 * (i % 2) : 4 * s.j + i;
    return {group + bit / 8, bit % 8};
  }
  size_t base = 128 * fours * 4 * width;
  uint32_t rest = s.unit - fours * 4;
  bool pair = dim / 32 % 2 == 1;
  if (pair && rest < 2) {
    int bit = width == 2 ? 4 * s.j + 2 * rest : 2 * s.j + rest;
    return {base + s.lane * 2 * width + bit / 8, bit % 8};
  }
  if (pair) base += 128 * 2 * width;
  int bit = static_cast<int>(width * s.j);
  return {base + s.lane * width + bit / 8, bit % 8};
}

Seat SeatOf(FragmentOrder order, uint32_t dim, uint32_t token, uint32_t channel) {
  return order == FragmentOrder::kKey ? KeySeat(dim, token, channel) : ValueSeat(dim, token, channel);
}

std::vector<uint8_t> RandomCodes(uint32_t dim, int bits) {
  std::mt19937 random(dim * 16 + bits);
  std::vector<uint8_t> codes(dim * kPlaneTokens);
  for (uint8_t& c : codes) c = random() & ((1u << bits) - 1);
  return codes;
}

struct Planes {
  std::vector<std::vector<uint8_t>> bytes;
  std::vector<uint8_t*> pointers;
  Planes(uint32_t dim, int bits) {
    for (int p = 0; p < bits - 1; ++p) bytes.emplace_back(PlaneBytes(dim, p == 0 ? 2 : 1), 0xEE);
    for (auto& b : bytes) pointers.push_back(b.data());
  }
};

TEST(PlanesTest, EveryBitStandsWhereTheOracleSays) {
  for (uint32_t dim = kMinCodecDim; dim <= kMaxCodecDim; dim += kCodecDimStep) {
    for (FragmentOrder order : {FragmentOrder::kKey, FragmentOrder::kValue}) {
      for (int bits : {2, 3, 4, 8}) {
        std::vector<uint8_t> codes = RandomCodes(dim, bits);
        Planes planes(dim, bits);
        PackPlanes(order, dim, bits, codes.data(), planes.pointers.data());
        std::set<Place> seen;
        for (uint32_t c = 0; c < dim; ++c) {
          for (uint32_t t = 0; t < kPlaneTokens; ++t) {
            uint8_t code = codes[c * kPlaneTokens + t];
            Seat seat = SeatOf(order, dim, t, c);
            Place crumb = PlaceOf(dim, seat, 2);
            ASSERT_TRUE(seen.insert(crumb).second) << dim << " " << t << " " << c;
            int level_bit = planes.bytes[0][crumb.byte] >> crumb.bit & 1,
                sign = planes.bytes[0][crumb.byte] >> (crumb.bit + 1) & 1;
            ASSERT_EQ(sign, code >> (bits - 1)) << dim << " " << t << " " << c;
            ASSERT_EQ(level_bit, code >> (bits - 2) & 1) << dim << " " << t << " " << c;
            Place one = PlaceOf(dim, seat, 1);
            for (int p = 1; p < bits - 1; ++p) {
              ASSERT_EQ(planes.bytes[p][one.byte] >> one.bit & 1, code >> (bits - 2 - p) & 1)
                  << dim << " " << p << " " << t << " " << c;
            }
          }
        }
      }
    }
  }
}

TEST(PlanesTest, UnpackIsTheInverseAndAPrefixOfPlanesIsAShorterCode) {
  for (uint32_t dim = kMinCodecDim; dim <= kMaxCodecDim; dim += kCodecDimStep) {
    for (FragmentOrder order : {FragmentOrder::kKey, FragmentOrder::kValue}) {
      for (int bits = 2; bits <= 8; ++bits) {
        std::vector<uint8_t> codes = RandomCodes(dim, bits), back(codes.size());
        Planes planes(dim, bits);
        PackPlanes(order, dim, bits, codes.data(), planes.pointers.data());
        for (int kept = 2; kept <= bits; ++kept) {
          UnpackPlanes(order, dim, kept, planes.pointers.data(), back.data());
          for (size_t i = 0; i < codes.size(); ++i)
            ASSERT_EQ(back[i], codes[i] >> (bits - kept)) << dim << " " << bits << " " << kept;
        }
      }
    }
  }
}

// The record of the CUDA prototypes (d = 128), in its own words.
TEST(PlanesTest, Dim128IsTheMeasuredRecord) {
  std::vector<uint8_t> codes = RandomCodes(128, 4);
  for (FragmentOrder order : {FragmentOrder::kKey, FragmentOrder::kValue}) {
    Planes planes(128, 4);
    PackPlanes(order, 128, 4, codes.data(), planes.pointers.data());
    auto word = [&](int plane, size_t index) {
      uint32_t w;
      std::memcpy(&w, planes.bytes[plane].data() + 4 * index, 4);
      return w;
    };
    for (uint32_t m = 0; m < 4; ++m) {
      for (uint32_t g = 0; g < 8; ++g) {
        for (uint32_t t = 0; t < 4; ++t) {
          for (uint32_t r = 0; r < 2; ++r) {
            size_t group = (m * 32 + 4 * g + t) * 2 + r;
            for (uint32_t i = 0; i < 4; ++i) {
              for (uint32_t j = 0; j < 8; ++j) {
                uint32_t token, channel;
                if (order == FragmentOrder::kKey) {
                  token = 16 * m + 8 * r + g;
                  channel = 32 * i + 8 * t + j;
                } else {
                  uint32_t mt = 4 * r + i, tokens[4] = {2 * t, 2 * t + 1, 2 * t + 8, 2 * t + 9};
                  token = 16 * m + tokens[j & 3];
                  channel = 32 * (mt >> 1) + 4 * (mt & 1) + 8 * (g >> 1) + 2 * (j >> 2) + (g & 1);
                }
                uint32_t code = codes[channel * 64 + token];
                ASSERT_EQ(word(0, 2 * group + (i >> 1)) >> (4 * j + 2 * (i & 1)) & 3, code >> 2);
                ASSERT_EQ(word(1, group) >> (4 * j + i) & 1, code >> 1 & 1);
                ASSERT_EQ(word(2, group) >> (4 * j + i) & 1, code & 1);
              }
            }
          }
        }
      }
    }
  }
}

TEST(PlanesTest, TokenSlotsAreAPermutation) {
  std::set<size_t> slots;
  for (uint32_t t = 0; t < 64; ++t) slots.insert(TokenSlot(t));
  EXPECT_EQ(slots.size(), 64u);
  EXPECT_EQ(*slots.rbegin(), 63u);
  EXPECT_EQ(TokenSlot(16 * 3 + 8 * 1 + 5), 8u * 5 + 2 * 3 + 1);
}

}  // namespace
}  // namespace quire

#include "core/base/digest.h"

// Plain C, to compare the vector code with.
#define XXH_INLINE_ALL
#define XXH_VECTOR XXH_SCALAR
#include <gtest/gtest.h>
#include <xxhash.h>

#include <random>
#include <vector>

namespace quire {
namespace {

// FIPS 180-2, appendix B.1.
TEST(Sha256, StandardVector) {
  EXPECT_EQ(Sha256().Update("a").Update("bc").Finish().Hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256, IntegersAreLittleEndian) {
  EXPECT_EQ(Sha256().UpdateU32(0x64636261).Finish(), Sha256().Update("abcd").Finish());
}

// RFC 4231, test case 2.
TEST(HmacSha256, StandardVector) {
  EXPECT_EQ(HmacSha256("Jefe", "what do ya want for nothing?").Hex(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(Xxh3, EmptyInputHasThePublishedValue) { EXPECT_EQ(Xxh3({}), 0x2D06800538D394C2u); }

TEST(Xxh3, EveryLengthAsPlainC) {
  std::mt19937 random(1);
  std::vector<uint8_t> bytes(70'000);
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(random());
  for (size_t size = 0; size < 3'000; ++size)
    ASSERT_EQ(Xxh3(Bytes(bytes).subspan(size % 7, size)), XXH3_64bits(bytes.data() + size % 7, size)) << size;
  EXPECT_EQ(Xxh3(bytes), XXH3_64bits(bytes.data(), bytes.size()));
}

TEST(Digest, HexRoundTripAndRefusals) {
  Digest d = Sha256().Update("x").Finish();
  EXPECT_EQ(Digest::FromHex(d.Hex()), d);
  EXPECT_EQ(Digest::FromBytes(d.AsString()), d);
  EXPECT_EQ(Digest::FromHex("abc"), std::nullopt);
  EXPECT_EQ(Digest::FromHex(std::string(64, 'g')), std::nullopt);
  EXPECT_EQ(Digest::FromBytes("short"), std::nullopt);
}

}  // namespace
}  // namespace quire

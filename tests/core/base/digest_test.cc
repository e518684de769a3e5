#include "core/base/digest.h"

#include <gtest/gtest.h>

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

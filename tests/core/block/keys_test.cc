// Expected values were made with Python's hashlib from the formulas of DESIGN.md.
#include "core/block/keys.h"

#include <gtest/gtest.h>

#include <numeric>

#include "core/block/layout.h"

namespace quire {
namespace {

std::vector<uint32_t> Tokens(size_t n) {
  std::vector<uint32_t> tokens(n);
  std::iota(tokens.begin(), tokens.end(), 100000u);
  return tokens;
}

TEST(KeysTest, GoldenChain) {
  Digest fingerprint;
  for (size_t i = 0; i < 32; ++i) fingerprint.bytes[i] = static_cast<uint8_t>(i);
  Digest root = RootKey(fingerprint, "salt", "extra");
  EXPECT_EQ(root.Hex(), "e7e9455826f6baa1e52f2ccf6d4afe7de144c61978245f03243540997ffc3e42");
  std::vector<Digest> keys = BlockKeys(root, Tokens(200));
  ASSERT_EQ(keys.size(), 3u);
  EXPECT_EQ(keys[0].Hex(), "c803cd5bc38c2e3adaa4f0221a8f2ee2a41f2e7fddb0877bb2073717a8d6836b");
  EXPECT_EQ(keys[2].Hex(), "f44ccf773e5c0487ee118a24556b288486a944536cf44cb27b0f825068dfc96a");
  EXPECT_EQ(RootKey(fingerprint, "").Hex(),
            "44bf6c06504e96d8cfddd9cd9c002dc591c8dc9000dcfd4888b4e73304ffeb5d");
}

TEST(KeysTest, ChainIsBlockByBlock) {
  Digest root = RootKey(Digest{}, "s");
  std::vector<uint32_t> tokens = Tokens(3 * kBlockTokens);
  std::vector<Digest> keys = BlockKeys(root, tokens);
  std::span<const uint32_t> all(tokens);
  EXPECT_EQ(keys[0], BlockKey(root, all.first(64)));
  EXPECT_EQ(keys[1], BlockKey(keys[0], all.subspan(64, 64)));
  EXPECT_TRUE(BlockKeys(root, all.first(63)).empty());
  EXPECT_EQ(BlockKeys(root, all.first(127)).size(), 1u);
}

TEST(KeysTest, EveryPartMatters) {
  Digest root = RootKey(Digest{}, "ab", "c");
  EXPECT_NE(root, RootKey(Digest{}, "a", "bc"));
  EXPECT_NE(root, RootKey(Digest{}, "ab"));
  std::vector<uint32_t> tokens = Tokens(128), changed = tokens;
  changed[0] ^= 1;
  EXPECT_NE(BlockKeys(root, tokens)[1], BlockKeys(root, changed)[1]);
}

}  // namespace
}  // namespace quire

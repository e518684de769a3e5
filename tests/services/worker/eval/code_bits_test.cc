#include "services/worker/eval/code_bits.h"

#include <gtest/gtest.h>

#include "core/block/slice_map.h"

namespace quire::worker {
namespace {

CodecSpec Spec(const std::string& text) {
  auto spec = CodecSpec::Parse(text);
  EXPECT_TRUE(spec.ok()) << spec.status();
  return *spec;
}

Layout SmolLayout() { return Layout::Uniform(Digest{}, 30, 3, 64); }

// The bits of the format's measured table (d = 64).
TEST(Bits, AreThoseOfTheFormat) {
  const struct {
    const char* spec;
    int levels;
    double k, v;
  } rows[] = {{"tq:k8v8", 0, 8.75, 8.25}, {"tq:k6v6", 0, 6.75, 6.25}, {"tq:k4v4", 0, 4.63, 4.13},
              {"tq:k3v3", 0, 3.50, 3.13}, {"tq:k2v2", 0, 2.38, 2.13}, {"tq:k4v4", 2, 3.50, 3.13},
              {"tq:k4v4", 1, 2.38, 2.13}, {"tq:k8v8", 3, 4.63, 4.13}, {"tq:k8v3", 0, 8.75, 3.13},
              {"raw", 0, 16, 16},         {"fp8", 0, 8.25, 8.25},     {"tq_prod:k4v3", 0, 4.5, 3.5}};
  for (const auto& row : rows) {
    auto bits = BitsOf(SmolLayout(), Spec(row.spec), row.levels);
    ASSERT_TRUE(bits.ok()) << bits.status();
    EXPECT_NEAR(bits->k, row.k, 0.0051) << row.spec << " at " << row.levels;
    EXPECT_NEAR(bits->v, row.v, 0.0051) << row.spec << " at " << row.levels;
  }
  auto mixed = BitsOf(SmolLayout(), Spec("tq:k4v4,layers=0-14:k2v2"), 0);
  ASSERT_TRUE(mixed.ok());
  EXPECT_NEAR(mixed->k, (4.63 + 2.38) / 2, 0.0051);
}

// Independently: bytes of the slices, which are padded to 16.
TEST(Bits, AreThoseThatObjectsHold) {
  for (uint32_t dim : {64u, 80u, 128u, 576u}) {
    const Layout layout = Layout::Uniform(Digest{}, 1, 1, dim);
    for (const char* text :
         {"tq:k2v2", "tq:k3v2", "tq:k4v4", "tq:k8v8", "tq:k8v3", "tq:k3v6", "fp8", "tq_prod:k4v3"}) {
      auto map = SliceMap::Create(layout, Part::Whole(layout), {Spec(text).ForLayer(0)}, 0);
      ASSERT_TRUE(map.ok()) << map.status();
      uint64_t bytes = 0;
      for (int level = 0; level < map->levels(); ++level) {
        bytes += map->slice(level, 0, 0).length;
        auto bits = BitsOf(layout, Spec(text), level + 1);
        ASSERT_TRUE(bits.ok());
        const double expected = (bits->k + bits->v) * kBlockTokens * dim / 8;
        // Every field of a slice may be padded; there are up to four of them, and 15 bytes each.
        EXPECT_GE(static_cast<double>(bytes) + 0.01, expected) << text << " d " << dim << " level " << level;
        EXPECT_LE(static_cast<double>(bytes),
                  expected + 60.0 * (level + 1) + (dim % 32 ? 0.02 * expected : 0))
            << text << " d " << dim << " level " << level;
      }
    }
  }
}

TEST(Levels, EndWhereBitsDo) {
  const Layout layout = SmolLayout();
  EXPECT_EQ(*LevelsFor(layout, Spec("tq:k4v4"), 2), 1);
  EXPECT_EQ(*LevelsFor(layout, Spec("tq:k4v4"), 3), 2);
  EXPECT_EQ(*LevelsFor(layout, Spec("tq:k4v4"), 4), 3);
  EXPECT_EQ(*LevelsFor(layout, Spec("tq:k8v8"), 4), 3);
  EXPECT_EQ(*LevelsFor(layout, Spec("tq:k8v8"), 8), 4);
  for (int bits : {1, 5, 7, 9}) {
    EXPECT_EQ(LevelsFor(layout, Spec("tq:k8v8"), bits).status().code(), absl::StatusCode::kInvalidArgument)
        << bits;
  }
  EXPECT_FALSE(LevelsFor(layout, Spec("tq:k3v3"), 4).ok());
  EXPECT_FALSE(LevelsFor(layout, Spec("raw"), 4).ok());
}

// What encoders make, by the map that says where they put it.
TEST(Bits, OfWholeObjectsCountTheirHeaders) {
  const Layout layout = SmolLayout();
  auto bits = ObjectBitsOf(layout, Spec("tq:k4v4"));
  auto codes = BitsOf(layout, Spec("tq:k4v4"), 0);
  ASSERT_TRUE(bits.ok() && codes.ok());
  EXPECT_GT(*bits, (codes->k + codes->v) / 2);
  EXPECT_LT(*bits, (codes->k + codes->v) / 2 + 0.1);
  EXPECT_EQ(TokenElements(layout), 30u * 2 * 3 * 64);
}

}  // namespace
}  // namespace quire::worker

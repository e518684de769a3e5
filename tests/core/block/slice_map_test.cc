#include "core/block/slice_map.h"

#include <gtest/gtest.h>

#include "tests/core/block/sample_block.h"

namespace quire {
namespace {

SliceMap Map(const Layout& layout, const std::string& spec, uint32_t sinks,
             std::optional<Part> part = std::nullopt) {
  Part p = part.value_or(Part::Whole(layout));
  auto map = SliceMap::Create(layout, p, LayerCodecs(*CodecSpec::Parse(spec), layout, p), sinks);
  EXPECT_TRUE(map.ok()) << map.status();
  return *map;
}

// Sinks, slices, layers and levels tile the object without gap or overlap, on 16 bytes; checksums count
// along.
void ExpectTiled(const SliceMap& map) {
  uint64_t at = map.header_bytes();
  size_t checksum = 0;
  auto take = [&](const Extent& e, auto index) {
    EXPECT_EQ(e.offset, at);
    EXPECT_EQ(e.length % 16, 0u);
    if (e.length > 0) {
      EXPECT_EQ(index(), checksum++);
    }
    at = e.end();
  };
  EXPECT_EQ(at % 16, 0u);
  for (int level = 0; level < map.levels(); ++level) {
    EXPECT_EQ(map.level(level).offset, at);
    for (uint32_t l = 0; l < map.layers(); ++l) {
      EXPECT_EQ(map.layer(level, l).offset, at);
      if (level == 0) take(map.sinks(l), [&] { return map.SinkChecksumIndex(l); });
      for (uint32_t h = 0; h < map.heads(); ++h)
        take(map.slice(level, l, h), [&] { return map.ChecksumIndex(level, l, h); });
      EXPECT_EQ(map.layer(level, l).end(), at);
    }
    EXPECT_EQ(map.level(level).end(), at);
    EXPECT_GT(map.level(level).length, 0u);
    EXPECT_EQ(map.ObjectBytes(level + 1), at);
    EXPECT_EQ(*map.LevelsOf(at), level + 1);
    EXPECT_EQ(map.LevelsOf(at + 16).ok(), level + 1 < map.levels() && map.ObjectBytes(level + 2) == at + 16);
    EXPECT_FALSE(map.LevelsOf(at - 1).ok());
  }
  EXPECT_EQ(checksum, map.checksums());
}

TEST(SliceMapTest, TilesTheObject) {
  for (const char* spec : {"raw", "fp8", "tq_prod:k2v8", "tq_prod:k4v4,layers=1:k8v2", "tq:k2v2", "tq:k3v3",
                           "tq:k4v4", "tq:k4v2", "tq:k2v5", "tq:k8v8", "tq:k3v3,layers=1:k8v2", "tq:k6v5"}) {
    for (uint32_t dim : {16u, 64u, 80u, 576u}) {
      for (uint32_t sinks : {0u, 4u}) ExpectTiled(Map(SampleLayout(3, 2, dim), spec, sinks));
    }
  }
  Layout mixed = SampleLayout(3, 4, 64);
  mixed.layers[1].streams[0].heads = mixed.layers[1].streams[1].heads = 1;
  mixed.layers[2].streams = {{StreamKind::kLatent, 1, 576, 0}};
  ExpectTiled(Map(mixed, "tq:k4v8", 4));
  ExpectTiled(Map(mixed, "fp8", 4));
  ExpectTiled(Map(mixed, "tq_prod:k4v8", 4, Part{0, 3, 1, 4}));
  ExpectTiled(Map(mixed, "tq:k4v8", 4, Part{0, 3, 1, 4}));
  EXPECT_EQ(Map(mixed, "tq:k4v4", 4).slice(0, 1, 3).length, 0u);
}

TEST(SliceMapTest, SizesAreTheFormats) {
  SliceMap map = Map(SampleLayout(1, 1, 128), "tq:k8v8", 0);
  EXPECT_EQ(map.slice(0, 0, 0).length,
            128u + 16 + 128 + 2048 + 64 + 2048);  // mean, scalars, scales, plane, codes, plane
  EXPECT_EQ(map.slice(1, 0, 0).length, 64u + 1024 + 1024);
  EXPECT_EQ(map.slice(2, 0, 0).length, 64u + 1024 + 1024);
  EXPECT_EQ(map.slice(3, 0, 0).length, 64u + 4 * 1024 + 64 + 4 * 1024);
  EXPECT_EQ(Map(SampleLayout(1, 1, 128), "tq:k2v3", 0).slice(1, 0, 0).length, 1024u);  // V's plane alone
  SliceMap sinks = Map(SampleLayout(1, 2, 64), "tq:k4v4", 4);
  EXPECT_EQ(sinks.sinks(0).length, 2u * 4 * 2 * 64 * 2);
  SliceMap raw = Map(SampleLayout(1, 2, 64), "raw", 4);
  EXPECT_EQ(raw.sinks(0).length, 0u);
  EXPECT_EQ(raw.slice(0, 0, 1).length, 2u * 64 * 64 * 2);
  SliceMap fp8 = Map(SampleLayout(1, 2, 64), "fp8", 4);
  EXPECT_EQ(fp8.sinks(0).length, 2u * 4 * 2 * 64 * 2);
  EXPECT_EQ(fp8.slice(0, 0, 1).length, 2u * (128 + 64 * 64));
  SliceMap prod = Map(SampleLayout(1, 2, 64), "tq_prod:k4v2", 4);
  EXPECT_EQ(prod.sinks(0).length, 2u * 4 * 2 * 64 * 2);
  EXPECT_EQ(prod.slice(0, 0, 1).length, 2u * 256 + 64 * 64 * 4 / 8 + 64 * 64 * 2 / 8);
}

TEST(SliceMapTest, LevelsFollowTheWidestStream) {
  for (auto [spec, levels] : {std::pair("raw", 1),
                              {"fp8", 1},
                              {"tq_prod:k8v8", 1},
                              {"tq:k2v2", 1},
                              {"tq:k3v2", 2},
                              {"tq:k2v4", 3},
                              {"tq:k5v2", 4},
                              {"tq:k8v8", 4}}) {
    EXPECT_EQ(Map(SampleLayout(1, 1, 64), spec, 0).levels(), levels) << spec;
  }
}

TEST(SliceMapTest, TqSliceCoversEveryBitOnce) {
  for (int k = 2; k <= 8; ++k) {
    for (int v = 2; v <= 8; ++v) {
      uint64_t k_planes = 0, v_planes = 0;
      for (int level = 0; level < kMaxLevels; ++level) {
        TqSlice s = TqSlice::At(level, 80, k, 96, v);
        k_planes += s.k_planes.length;
        v_planes += s.v_planes.length;
        EXPECT_EQ(s.v_planes.end(), s.bytes);
      }
      EXPECT_EQ(k_planes, 80u * 8 * k);
      EXPECT_EQ(v_planes, 96u * 8 * v);
    }
  }
}

TEST(SliceMapTest, RefusesWhatIsNotValid) {
  Layout layout = SampleLayout(1, 1, 64);
  Part whole = Part::Whole(layout);
  auto code = [&](LayerCodec codec, uint32_t sinks = 0) {
    return SliceMap::Create(layout, whole, {codec}, sinks).status().code();
  };
  EXPECT_EQ(code({CodecId::kTq, 1, 4}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({CodecId::kTq, 9, 4}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({CodecId::kTq, 4, 0}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({CodecId::kRaw, 4, 4}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({CodecId::kTq, 4, 4}, 5), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({static_cast<CodecId>(77), 4, 4}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({CodecId::kFp8, 8, 8}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({CodecId::kTqProd, 1, 4}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({CodecId::kTqProd, 4, 9}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({CodecId::kQpc, 0, 0}), absl::StatusCode::kUnimplemented);
  EXPECT_FALSE(SliceMap::Create(layout, whole, {}, 0).ok());
  EXPECT_FALSE(SliceMap::Create(layout, Part{0, 2, 0, 1}, {{}, {}}, 0).ok());
}

}  // namespace
}  // namespace quire

#include "core/codec/spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quire {
namespace {

using ::testing::HasSubstr;

TEST(SpecTest, CanonicalTexts) {
  const std::pair<const char*, const char*> cases[] = {
      {"raw", "raw"},
      {"fp8", "fp8"},
      {"tq", "tq:k4v4"},
      {"tq:k4v4", "tq:k4v4"},
      {"tq:k2v8", "tq:k2v8"},
      {"tq:k4v4,effort=0", "tq:k4v4,effort=0"},
      {"tq:k6v3,layers=29:k8v8,effort=2,layers=0-1:k8v8", "tq:k6v3,effort=2,layers=0-1:k8v8,layers=29:k8v8"},
      {"tq:k4v4,layers=2-3:k8v8,layers=0-1:k8v8", "tq:k4v4,layers=0-3:k8v8"},
      {"tq:k4v4,layers=5-5:k2v2", "tq:k4v4,layers=5:k2v2"},
      {"tq:k4v4,layers=5:k4v4", "tq:k4v4,layers=5:k4v4"},
      {"tq:k6v3,layers=0-1:k8v8", "tq:k6v3,layers=0-1:k8v8"},
      {"tq:k6v3,layers=7:k8v8,layers=5:k8v8,layers=6:k8v8", "tq:k6v3,layers=5-7:k8v8"},
      {"tq:k6v3,layers=7:k8v8,layers=5:k8v8,layers=6:k8v7",
       "tq:k6v3,layers=5:k8v8,layers=6:k8v7,layers=7:k8v8"},
      {"tq:k6v3,layers=0:k8v8,layers=1023:k2v2", "tq:k6v3,layers=0:k8v8,layers=1023:k2v2"},
      {"tq_prod", "tq_prod:k4v4"},
      {"tq_prod:k4v4", "tq_prod:k4v4"},
      {"tq_prod:k2v8,layers=3:k8v2", "tq_prod:k2v8,layers=3:k8v2"},
  };
  for (const auto& [text, canonical] : cases) {
    auto spec = CodecSpec::Parse(text);
    ASSERT_TRUE(spec.ok()) << text << ": " << spec.status();
    EXPECT_EQ(spec->ToString(), canonical);
    auto again = CodecSpec::Parse(spec->ToString());
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(*again, *spec);
  }
}

TEST(SpecTest, Layers) {
  auto spec = CodecSpec::Parse("tq:k4v3,effort=3,layers=0-1:k8v7,layers=9:k2v2");
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->ForLayer(0), (LayerCodec{CodecId::kTq, 8, 7}));
  EXPECT_EQ(spec->ForLayer(1), (LayerCodec{CodecId::kTq, 8, 7}));
  EXPECT_EQ(spec->ForLayer(2), (LayerCodec{CodecId::kTq, 4, 3}));
  EXPECT_EQ(spec->ForLayer(9), (LayerCodec{CodecId::kTq, 2, 2}));
  EXPECT_EQ(spec->ForLayer(10), (LayerCodec{CodecId::kTq, 4, 3}));
  EXPECT_EQ(spec->effort(4), 3);
  EXPECT_EQ(spec->effort(7), 3);
  EXPECT_EQ(CodecSpec::Parse("tq:k6v4,effort=0")->effort(6), 0);
  EXPECT_EQ(CodecSpec::Parse("tq:k6v4")->effort(6), 2);
  EXPECT_EQ(CodecSpec::Parse("tq:k6v4")->effort(4), 0);
  EXPECT_EQ(spec->last_named_layer(), 9);
  EXPECT_EQ(CodecSpec().last_named_layer(), -1);
  EXPECT_EQ(CodecSpec().ToString(), "tq:k4v4");
  EXPECT_EQ(CodecSpec::Parse("raw")->ForLayer(3), (LayerCodec{CodecId::kRaw, 0, 0}));
  EXPECT_EQ(CodecSpec::Parse("fp8")->ForLayer(3), (LayerCodec{CodecId::kFp8, 0, 0}));
  auto prod = CodecSpec::Parse("tq_prod:k4v3,layers=1:k8v2");
  ASSERT_TRUE(prod.ok());
  EXPECT_EQ(prod->ForLayer(0), (LayerCodec{CodecId::kTqProd, 4, 3}));
  EXPECT_EQ(prod->ForLayer(1), (LayerCodec{CodecId::kTqProd, 8, 2}));
}

TEST(SpecTest, MistakesAreNamedWithTheirPosition) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "at 0"},
      {"zip", "at 0"},
      {"TQ", "at 0"},
      {"raw:k4v4", "at 3: codec raw takes no bits and no options"},
      {"fp8,effort=1", "at 3: codec fp8 takes no bits and no options"},
      {"fp8:k8v8", "at 3: codec fp8 takes no bits and no options"},
      {"fp8,layers=0-1:k8v8", "at 3: codec fp8 takes no bits and no options"},
      {"fp8 ", "at 3"},
      {"fp16", "at 0: expected a codec: raw, fp8, tq or tq_prod"},
      {" raw", "at 0"},
      {"tq_", "at 0"},
      {"tq_prod:", "at 8: expected 'k'"},
      {"tq_prod:k1v4", "at 9: bits of K is 2 to 8, not 1"},
      {"tq_prod:k4v9", "at 11: bits of V is 2 to 8, not 9"},
      {"tq_prod:k4v4,effort=1", "at 13: codec tq_prod has no effort"},
      {"tq_prod:k4v4,layers=2:k4v4,layers=0-4:k4v4", "at 27: layer 2 is named twice"},
      {"tq4", "at 0"},
      {"tq:", "at 3: expected 'k'"},
      {"tq:k", "at 4"},
      {"tq:k4", "at 5: expected 'v'"},
      {"tq:k9v4", "at 4: bits of K is 2 to 8, not 9"},
      {"tq:k1v4", "at 4"},
      {"tq:k4v0", "at 6"},
      {"tq:k4v4 ", "at 7"},
      {"tq:k4v4,", "at 8"},
      {"tq:k4v4,effort=4", "at 15"},
      {"tq:k4v4,effort=1,effort=1", "at 17: effort is given twice"},
      {"tq:k4v4,effort=-1", "at 15"},
      {"tq:k4v4,layers=3-2:k8v8", "at 17"},
      {"tq:k4v4,layers=1024:k8v8", "at 15"},
      {"tq:k4v4,layers=99999999999:k8v8", "at 15"},
      {"tq:k4v4,layers=0-3:k8v8,layers=2:k8v8", "at 24: layer 2 is named twice"},
      {"tq:k4v4,layers=0", "at 16"},
      {"tq:k4v4,colour=0", "at 8"},
      {"tq:k4v4,layers=0:raw", "at 17: expected 'k'"},
      {"tq:k4v4,layers=0:tq:k8v8", "at 17: expected 'k'"},
      {"tq:k4v4,layers=:k8v8", "at 15: expected a layer, a number"},
      {"tq:k4v4,layers=1-:k8v8", "at 17: expected the last layer, a number"},
      {"tq:k4v4,layers=1-1024:k8v8", "at 17: the last layer is 1 to 1023, not 1024"},
      {"tq:k04v4,layers=", "at 16"},
      {"tq:K4v4", "at 3"},
  };
  for (const auto& [text, where] : cases) {
    auto spec = CodecSpec::Parse(text);
    ASSERT_FALSE(spec.ok()) << text;
    EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(spec.status().message()), HasSubstr(where)) << text;
  }
  EXPECT_EQ(CodecSpec::Parse("qpc:low").status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace quire

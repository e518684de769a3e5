#include "core/block/layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/core/block/sample_block.h"

namespace quire {
namespace {

using ::testing::HasSubstr;

TEST(LayoutTest, CanonicalBytesRoundTrip) {
  Layout layout = SampleLayout(3, 2, 80, DType::kF16);
  layout.rope_state = "theta=10000;scale=1";
  layout.layers[1].streams[0].sliding_window = layout.layers[1].streams[1].sliding_window = 512;
  layout.layers[2].streams = {{StreamKind::kLatent, 1, 576, 0}};
  ASSERT_TRUE(layout.Validate().ok()) << layout.Validate();
  std::vector<uint8_t> bytes = layout.Serialize();
  auto parsed = Layout::Parse(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, layout);
  EXPECT_EQ(parsed->Serialize(), bytes);
  EXPECT_EQ(parsed->Fingerprint(), Sha256().Update(Bytes(bytes)).Finish());
}

TEST(LayoutTest, ByteFormIsFixed) {
  Layout layout = SampleLayout(1, 3, 64);
  layout.rope_state = "r";
  std::string hex = HexString(layout.Serialize());
  std::string model;
  for (int i = 0; i < 32; ++i) model += "ab";
  EXPECT_EQ(hex,
            "514b564c0100"
            "00"
            "00"
            "0100"
            "0100"
            "40000000"
            "2a00000000000000" +
                model +
                "01000000"
                "72"
                "01000000"
                "02000000"
                "00000000030000004000000000000000"
                "01000000030000004000000000000000");
}

TEST(LayoutTest, EveryTruncationIsRefused) {
  std::vector<uint8_t> bytes = SampleLayout(2, 2, 64).Serialize();
  for (size_t n = 0; n < bytes.size(); ++n) EXPECT_FALSE(Layout::Parse(Bytes(bytes).first(n)).ok()) << n;
  bytes.push_back(0);
  EXPECT_EQ(Layout::Parse(bytes).status().code(), absl::StatusCode::kDataLoss);
}

// A changed byte is refused or gives another layout; Parse accepts exactly what Serialize makes.
TEST(LayoutTest, EveryByteCounts) {
  Layout layout = SampleLayout(2, 2, 64);
  std::vector<uint8_t> bytes = layout.Serialize();
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (uint8_t flip : {0x01, 0x10, 0x80, 0xFF}) {
      std::vector<uint8_t> changed = bytes;
      changed[i] ^= flip;
      auto parsed = Layout::Parse(changed);
      if (!parsed.ok()) continue;
      EXPECT_NE(*parsed, layout) << i;
      EXPECT_EQ(parsed->Serialize(), changed) << i;
      EXPECT_NE(parsed->Fingerprint(), layout.Fingerprint()) << i;
    }
  }
}

TEST(LayoutTest, ValidateNamesFieldLimitAndValue) {
  const std::pair<std::function<void(Layout&)>, const char*> cases[] = {
      {[](Layout& l) { l.layers.clear(); }, "layers must be 1 to 1024, not 0"},
      {[](Layout& l) { l.layers.resize(1025, l.layers[0]); }, "not 1025"},
      {[](Layout& l) { l.block_tokens = 32; }, "block_tokens must be 64, not 32"},
      {[](Layout& l) { l.layers[1].streams[0].dim = 72; },
       "layers[1]: key dim must be a multiple of 16 from 16 to 576, not 72"},
      {[](Layout& l) { l.layers[1].streams[1].dim = 592; }, "value dim"},
      {[](Layout& l) { l.layers[0].streams[0].dim = 0; }, "not 0"},
      {[](Layout& l) { l.layers[0].streams[0].heads = 5; }, "key has 5 heads, value 2"},
      {[](Layout& l) { l.layers[0].streams[0].heads = 0; }, "key heads must be 1 to 1024, not 0"},
      {[](Layout& l) { l.layers[0].streams.pop_back(); }, "streams must be {key, value} or {latent}"},
      {[](Layout& l) { std::swap(l.layers[0].streams[0], l.layers[0].streams[1]); }, "streams must be"},
      {[](Layout& l) { l.layers[0].streams[0].sliding_window = 5; }, "sliding_window 5"},
      {[](Layout& l) { l.rope_state.assign(5000, 'x'); }, "at most 4096 bytes, not 5000"},
      {[](Layout& l) { l.rotation = static_cast<RotationId>(9); }, "rotation 9"},
      {[](Layout& l) { l.codebook = static_cast<CodebookId>(0); }, "codebook 0"},
      {[](Layout& l) { l.dtype = static_cast<DType>(3); }, "dtype 3"},
      {[](Layout& l) { l = SampleLayout(1024, 65, 64); }, "at most 65536, not 66560"},
  };
  for (const auto& [change, message] : cases) {
    Layout layout = SampleLayout(2, 2, 64);
    change(layout);
    absl::Status status = layout.Validate();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

TEST(LayoutTest, RawBytes) {
  EXPECT_EQ(SampleLayout(30, 3, 64).RawBlockBytes(), 30u * 2 * 3 * 64 * 64 * 2);
  EXPECT_EQ(SampleLayout(1, 1, 64, DType::kF32).RawBlockBytes(), 2u * 64 * 64 * 4);
}

TEST(PartTest, Ranges) {
  Layout layout = SampleLayout(4, 8, 64);
  layout.layers[3].streams[0].heads = layout.layers[3].streams[1].heads = 2;
  Part whole = Part::Whole(layout);
  EXPECT_EQ(whole, (Part{0, 4, 0, 8}));
  EXPECT_TRUE(whole.Validate(layout).ok());
  EXPECT_TRUE((Part{1, 3, 2, 4}).Validate(layout).ok());
  for (Part bad : {Part{0, 5, 0, 8}, Part{2, 2, 0, 8}, Part{3, 2, 0, 8}, Part{0, 4, 0, 9}, Part{0, 4, 4, 4},
                   Part{3, 4, 2, 8}}) {
    EXPECT_EQ(bad.Validate(layout).code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(whole.Covers({1, 2, 3, 4}));
  EXPECT_FALSE((Part{0, 2, 0, 8}).Covers({1, 3, 0, 8}));
  EXPECT_FALSE((Part{0, 4, 4, 8}).Covers({0, 4, 3, 8}));
  EXPECT_EQ((Part{0, 4, 1, 8}).HeadsOf(layout.layers[3]), 1u);
  EXPECT_EQ((Part{0, 4, 4, 8}).HeadsOf(layout.layers[3]), 0u);
}

}  // namespace
}  // namespace quire

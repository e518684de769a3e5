// Untrusted bytes: cut, flipped and forged objects. The sanitizer build makes "no access out of bounds" a
// check of these too.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/block/object.h"
#include "tests/core/block/sample_block.h"

namespace quire {
namespace {

using ::testing::HasSubstr;

class ForgeryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    layout_ = SampleLayout(2, 1, 16);
    codec_ = *BlockCodec::Create(layout_, Part::Whole(layout_));
    SampleBlock block(layout_, Part::Whole(layout_));
    ASSERT_TRUE(
        codec_->Encode(*CodecSpec::Parse("tq:k4v5,layers=1:k2v3"), identity_, block.Views(), &object_).ok());
    header_bytes_ = *HeaderBytes(object_);
  }

  // Opens, verifies and decodes: whatever is accepted must also be harmless.
  absl::Status Use(Bytes object) const {
    auto reader = BlockReader::Open(codec_, identity_, object);
    if (!reader.ok()) return reader.status();
    absl::Status verified = reader->Verify();
    if (!verified.ok()) return verified;
    std::vector<float> k(64 * 16), v(64 * 16), mean(16);
    MutableLayerView out{{k.data(), DType::kF32, 16, 16}, {v.data(), DType::kF32, 16, 16}};
    for (uint32_t l = 0; l < 2; ++l) {
      for (int levels = 1; levels <= reader->levels(); ++levels) {
        EXPECT_TRUE(reader->DecodeLayer(l, levels, out).ok());
        EXPECT_TRUE(reader->DecodeRotated(l, 0, levels, {k, mean, v}).ok());
      }
    }
    return absl::OkStatus();
  }

  // With the header's checksum made right again.
  static std::vector<uint8_t> Reseal(std::vector<uint8_t> object, size_t header_bytes) {
    uint64_t checksum = Xxh3(Bytes(object).first(header_bytes - 8));
    std::memcpy(object.data() + header_bytes - 8, &checksum, 8);
    return object;
  }
  template <typename T>
  std::vector<uint8_t> Forge(size_t offset, T value) const {
    std::vector<uint8_t> object = object_;
    std::memcpy(object.data() + offset, &value, sizeof(T));
    return Reseal(std::move(object), header_bytes_);
  }

  Layout layout_;
  BlockIdentity identity_ = SampleIdentity(0);
  std::shared_ptr<const BlockCodec> codec_;
  std::vector<uint8_t> object_;
  uint32_t header_bytes_ = 0;
};

TEST_F(ForgeryTest, TheWholeIsFine) { EXPECT_TRUE(Use(object_).ok()) << Use(object_); }

TEST_F(ForgeryTest, EveryFlippedBitIsSeen) {
  for (size_t i = 0; i < object_.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::vector<uint8_t> changed = object_;
      changed[i] ^= static_cast<uint8_t>(1u << bit);
      absl::Status status = Use(changed);
      ASSERT_TRUE(absl::IsDataLoss(status) || absl::IsUnimplemented(status))
          << i << " " << bit << " " << status;
    }
  }
}

TEST_F(ForgeryTest, OnlyLevelBoundariesAreLengths) {
  auto reader = BlockReader::OpenAny(codec_, object_);
  ASSERT_TRUE(reader.ok());
  ASSERT_EQ(reader->levels(), 4);
  for (size_t n = 0; n <= object_.size(); ++n) {
    std::vector<uint8_t> cut(
        object_.begin(),
        object_.begin() + static_cast<ptrdiff_t>(n));  // its own allocation: bounds are checked
    bool boundary = false;
    for (int levels = 1; levels <= 4; ++levels)
      boundary = boundary || reader->slices().ObjectBytes(levels) == n;
    absl::Status status = Use(cut);
    EXPECT_EQ(status.ok(), boundary) << n;
    if (!boundary) {
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << n << status;
    }
    EXPECT_EQ(ParseHeader(cut).ok(), n >= header_bytes_) << n;
  }
  std::vector<uint8_t> longer = object_;
  longer.resize(longer.size() + 16);
  EXPECT_EQ(Use(longer).code(), absl::StatusCode::kDataLoss);
}

TEST_F(ForgeryTest, EveryForgedFieldIsRefusedOrHarmless) {
  for (size_t offset = 0; offset + 4 <= header_bytes_ - 8; offset += 2) {
    uint32_t was;
    std::memcpy(&was, object_.data() + offset, 4);
    for (uint32_t value :
         {0u, 1u, was + 1, was - 1, was * 2, was + 16, 0x7FFFFFFFu, 0x80000000u, 0xFFFFFFFFu, 0xFFFFFFF0u}) {
      std::vector<uint8_t> forged = Forge(offset, value);
      absl::Status status = Use(forged);
      EXPECT_TRUE(status.ok() || absl::IsDataLoss(status) || absl::IsUnimplemented(status))
          << offset << " " << value << " " << status;
      // A reader that knows no layout.
      (void)ParseHeader(forged);
    }
  }
}

TEST_F(ForgeryTest, NamedForgeries) {
  auto expect = [&](const std::vector<uint8_t>& object, absl::StatusCode code, const char* what) {
    absl::Status status = Use(object);
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(what));
  };
  constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
  constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
  expect(Forge(0, 'X'), kDataLoss, "magic");
  expect(Forge(4, uint16_t{2}), kUnimplemented, "version 2 is unknown");
  expect(Forge(6, uint16_t{1}), kUnimplemented, "flags 1");
  expect(Forge(12, uint32_t{128}), kDataLoss, "block_tokens is 128");
  expect(Forge(16, uint32_t{0}), kDataLoss, "checksums");  // no sinks: fewer checksums
  expect(Forge(16, uint32_t{1000}), kDataLoss, "1000 sink tokens");
  expect(Forge(20, uint32_t{1}), kDataLoss, "sink tokens in block 1");
  expect(Forge(28, uint32_t{1025}), kDataLoss, "layers [0, 1025)");
  expect(Forge(28, uint32_t{1024}), kDataLoss, "do not add up");
  expect(Forge(36, uint32_t{2}), kDataLoss, "part");
  expect(Forge(40, uint16_t{2}), kDataLoss, "rotation is 2, not 1");
  expect(Forge(42, uint16_t{2}), kDataLoss, "codebook is 2, not 1");
  expect(Forge(44, uint32_t{5}), kDataLoss, "5 levels");
  expect(Forge(48, uint64_t{43}), kDataLoss, "rotation seed is 43, not 42");
  expect(Forge(56, uint32_t{0x7FFFFFFF}), kDataLoss, "2147483647 checksums");
  expect(Forge(64, uint8_t{0}), kDataLoss, "fingerprint");
  expect(Forge(96, uint8_t{0}), kDataLoss, "parent is 00");
  expect(Forge(128, uint8_t{0}), kDataLoss, "key is 00");
  expect(Forge(192, uint8_t{9}), kUnimplemented, "unknown codec 9");
  expect(Forge(192, uint8_t{4}), kUnimplemented, "codec qpc");
  expect(Forge(192, uint8_t{1}), kDataLoss, "fp8 has no bits");
  expect(Forge(192, uint8_t{3}), kDataLoss, "its codecs make 2, 5");  // tq_prod has one level
  expect(Forge(193, uint8_t{9}), kDataLoss, "at most 8");
  expect(Forge(193, uint8_t{8}), kDataLoss, "length of level");
  expect(Forge(200, uint64_t{0}), kDataLoss, "level 0 is said to lie at 0");
  expect(Forge(208, uint64_t{0}), kDataLoss, "level 0 is said");
  expect(Forge(208, ~uint64_t{15}), kDataLoss, "level 0 is said");
  expect(Forge(264, -1.0f), kDataLoss, "relative error");
}

TEST_F(ForgeryTest, AnotherBlockOrLayoutIsRefused) {
  BlockIdentity other = identity_;
  other.key.bytes[5] ^= 1;
  EXPECT_THAT(std::string(BlockReader::Open(codec_, other, object_).status().message()), HasSubstr("key is"));
  other = identity_;
  other.parent.bytes[5] ^= 1;
  EXPECT_THAT(std::string(BlockReader::Open(codec_, other, object_).status().message()),
              HasSubstr("parent is"));
  Layout layout = layout_;
  layout.rope_state = "another";
  auto codec = *BlockCodec::Create(layout, Part::Whole(layout));
  EXPECT_THAT(std::string(BlockReader::OpenAny(codec, object_).status().message()),
              HasSubstr("fingerprint is"));
  auto part = *BlockCodec::Create(layout_, Part{0, 1, 0, 1});
  EXPECT_THAT(std::string(BlockReader::OpenAny(part, object_).status().message()), HasSubstr("part is"));
}

TEST_F(ForgeryTest, HeaderAloneTellsLevelsAndErrors) {
  auto header = ParseHeader(Bytes(object_).first(header_bytes_));
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->levels.size(), 4u);
  EXPECT_EQ(header->levels.back().end(), object_.size());
  EXPECT_EQ(header->identity, identity_);
  EXPECT_EQ(header->fingerprint, layout_.Fingerprint());
  EXPECT_EQ(header->codecs[0], (LayerCodec{CodecId::kTq, 4, 5}));
  EXPECT_EQ(header->codecs[1], (LayerCodec{CodecId::kTq, 2, 3}));
  EXPECT_GT(header->relative_error[0][0][0], header->relative_error[2][0][0]);
  EXPECT_EQ(header->relative_error[1][1][1],
            header->relative_error[3][1][1]);  // 3 bits are all that layer has
  std::vector<uint8_t> again = SerializeHeader(*header);
  EXPECT_TRUE(std::equal(again.begin(), again.end(), object_.begin()));
}

TEST_F(ForgeryTest, VerifyLayerSeesOnlyItsOwn) {
  auto reader = BlockReader::OpenAny(codec_, object_);
  ASSERT_TRUE(reader.ok());
  std::vector<uint8_t> changed = object_;
  changed[reader->slices().slice(2, 0, 0).offset] ^= 1;
  auto bad = BlockReader::OpenAny(codec_, changed);
  ASSERT_TRUE(bad.ok());
  EXPECT_TRUE(bad->VerifyLayer(0, 2).ok());
  EXPECT_EQ(bad->VerifyLayer(0, 3).code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(bad->VerifyLayer(1, 4).ok());
  EXPECT_FALSE(bad->Verify().ok());
  EXPECT_EQ(bad->VerifyLayer(2, 1).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace quire

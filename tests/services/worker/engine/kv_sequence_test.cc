#include "services/worker/engine/kv_sequence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/services/worker/engine/synthetic_kv.h"

namespace quire::worker {
namespace {

using ::testing::HasSubstr;

uint32_t RawTokens(const KvSequence& kv) {
  uint32_t raw = 0;
  for (size_t p = 0; p < kv.pages().size(); ++p) {
    const uint32_t end = std::min<uint32_t>(kv.length(), static_cast<uint32_t>(p + 1) * kBlockTokens);
    if (kv.pages()[p].raw != nullptr) raw += end - static_cast<uint32_t>(p) * kBlockTokens;
  }
  return raw;
}

TEST(KvSequence, KeepsTheLast128To191TokensRaw) {
  KvSequence kv = NewSequence(SmallCodec(), Spec("tq:k4v4"));
  Writer writer;
  for (uint32_t token : SomeTokens(400)) {
    writer.Append(kv, std::vector{token});
    const uint32_t length = kv.length();
    EXPECT_EQ(RawTokens(kv), length < 192 ? length : 128 + length % 64) << "at length " << length;
    EXPECT_EQ(kv.blocks().size(), length / 64);
  }
}

TEST(KvSequence, BlocksFollowTheKeyChainHoweverTokensArrive) {
  const auto codec = SmallCodec();
  const auto tokens = SomeTokens(330);
  const auto keys = BlockKeys(RootKey(codec->fingerprint(), "salt"), tokens);
  for (size_t step : {1, 63, 64, 100, 330}) {
    KvSequence kv = NewSequence(codec, Spec("tq:k3v3"));
    Writer writer;
    for (size_t done = 0; done < tokens.size(); done += step) {
      writer.Append(kv, std::span(tokens).subspan(done, std::min(step, tokens.size() - done)));
    }
    ASSERT_EQ(kv.blocks().size(), keys.size()) << "in steps of " << step;
    for (size_t i = 0; i < keys.size(); ++i) {
      EXPECT_EQ(kv.blocks()[i].identity.key, keys[i]);
      EXPECT_EQ(kv.blocks()[i].identity.index, i);
      ASSERT_NE(kv.blocks()[i].object, nullptr);
    }
  }
}

TEST(KvSequence, NotANumberKeepsItsBlockRawAndOutOfTheStore) {
  KvSequence kv = NewSequence(SmallCodec(), Spec("tq:k4v4"));
  const auto tokens = SomeTokens(500);
  Writer writer;
  ASSERT_TRUE(kv.Reserve(std::span(tokens).first(400)).ok());
  writer.Fill(kv);
  std::vector<float> k(kDim, 1.0f), v(kDim, 1.0f);
  k[3] = std::numeric_limits<float>::quiet_NaN();
  kv.StoreKv(1, 0, 70, k.data(), v.data());
  ASSERT_TRUE(kv.Commit().ok());
  writer.Append(kv, std::span(tokens).subspan(400));
  EXPECT_NE(kv.blocks()[0].object, nullptr);
  EXPECT_EQ(kv.blocks()[1].object, nullptr);
  EXPECT_NE(kv.blocks()[2].object, nullptr);
  EXPECT_EQ(kv.pages()[0].raw, nullptr);
  EXPECT_NE(kv.pages()[1].raw, nullptr);
  EXPECT_EQ(kv.pages()[2].raw, nullptr);
}

TEST(KvSequence, SinksStayExact) {
  for (const char* spec : {"raw", "fp8", "tq:k2v2"}) {
    const auto codec = SmallCodec();
    const auto tokens = SomeTokens(300);
    KvSequence kv = NewSequence(codec, Spec(spec));
    Writer writer;
    writer.Append(kv, tokens);
    KvSequence restored = NewSequence(codec, Spec(spec));
    ASSERT_TRUE(restored.Restore(std::span(tokens).first(64), kv.blocks()[0].object).ok());
    for (const KvSequence* sequence : {&kv, &restored}) {
      for (uint32_t run = 0; run < kLayers * kKvHeads; ++run) {
        std::vector<float> k(kMaxSinkTokens * kDim), v(k.size());
        sequence->LoadSinks(run / kKvHeads, run % kKvHeads, k.data(), v.data());
        for (uint32_t i = 0; i < k.size(); ++i) {
          const size_t at = Writer::At(i / kDim, run / kKvHeads, run % kKvHeads) + i % kDim;
          ASSERT_EQ(k[i], writer.k[at]) << spec;
          ASSERT_EQ(v[i], writer.v[at]) << spec;
        }
      }
    }
  }
}

TEST(KvSequence, BytesShrinkByTheCode) {
  const uint64_t raw_block = SmallCodec()->layout().RawBlockBytes();
  KvSequence coded = NewSequence(SmallCodec(), Spec("tq:k4v4")), raw = NewSequence(SmallCodec(), Spec("raw"));
  Writer writer;
  EXPECT_EQ(coded.kv_bytes(), 0u);
  writer.Append(coded, SomeTokens(1024));
  writer.Append(raw, SomeTokens(1024));
  EXPECT_LT(coded.kv_bytes(), raw.kv_bytes() / 2);
  EXPECT_GT(raw.kv_bytes(), 16 * raw_block);
}

// What a store may hand back in place of block 1.
class Forged : public ::testing::Test {
 protected:
  void SetUp() override {
    codec_ = SmallCodec();
    tokens_ = SomeTokens(192);
    original_ = std::make_unique<KvSequence>(NewSequence(codec_, Spec("tq:k4v4")));
    writer_.Append(*original_, tokens_);
    restored_ = std::make_unique<KvSequence>(NewSequence(codec_, Spec("tq:k4v4")));
    ASSERT_TRUE(restored_->Restore(Block(0), Object(0)).ok());
  }
  std::span<const uint32_t> Block(size_t i) const { return std::span(tokens_).subspan(i * 64, 64); }
  std::shared_ptr<const std::vector<uint8_t>> Object(size_t i) const { return original_->blocks()[i].object; }
  void ExpectRefused(std::vector<uint8_t> object, const std::string& what) {
    const uint64_t bytes = restored_->kv_bytes();
    const absl::Status status =
        restored_->Restore(Block(1), std::make_shared<std::vector<uint8_t>>(std::move(object)));
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << what << ": " << status;
    EXPECT_EQ(restored_->length(), 64u) << what;
    EXPECT_EQ(restored_->blocks().size(), 1u) << what;
    EXPECT_EQ(restored_->kv_bytes(), bytes) << what;
  }

  std::shared_ptr<const BlockCodec> codec_;
  std::vector<uint32_t> tokens_;
  Writer writer_;
  std::unique_ptr<KvSequence> original_, restored_;
};

TEST_F(Forged, EveryFlippedByteIsFound) {
  const std::vector<uint8_t>& good = *Object(1);
  auto reader = BlockReader::OpenAny(codec_, good);
  ASSERT_TRUE(reader.ok());
  // Padding between slices is covered by no checksum and read by nobody, so flips go to bytes inside slices
  // and to the header.
  std::vector<size_t> offsets;
  for (size_t at = 0; at < reader->slices().header_bytes(); at += 13) offsets.push_back(at);
  for (int level = 0; level < reader->slices().levels(); ++level) {
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      for (uint32_t head = 0; head < kKvHeads; ++head) {
        const Extent slice = reader->slices().slice(level, layer, head);
        for (uint64_t at : {slice.offset, slice.offset + slice.length / 2, slice.end() - 1})
          offsets.push_back(at);
      }
    }
  }
  for (size_t at : offsets) {
    std::vector<uint8_t> bad = good;
    bad[at] ^= 0x10;
    ExpectRefused(std::move(bad), "byte " + std::to_string(at));
  }
  EXPECT_TRUE(restored_->Restore(Block(1), Object(1)).ok());
}

TEST_F(Forged, AnotherBlockIsNotThisOne) {
  ExpectRefused(*Object(0), "the block before");
  ExpectRefused(*Object(2), "the block after");
  KvSequence other(codec_, Spec("tq:k4v4"), nullptr, RootKey(codec_->fingerprint(), "another salt"),
                   {4096, kVocabulary}, KvSequence::Mode::kServing);
  writer_.Append(other, tokens_);
  ExpectRefused(*other.blocks()[1].object, "another salt");
  const Layout layout = Layout::Uniform(Digest{{1}}, kLayers, kKvHeads, kDim);
  KvSequence model = NewSequence(*BlockCodec::Create(layout, Part::Whole(layout)), Spec("tq:k4v4"));
  writer_.Append(model, tokens_);
  ExpectRefused(*model.blocks()[1].object, "another model");
}

TEST_F(Forged, OnlyLevelBoundariesEndAnObject) {
  const std::vector<uint8_t>& good = *Object(1);
  for (size_t size : {size_t{0}, size_t{15}, size_t{100}, good.size() / 2 + 1, good.size() - 1}) {
    ExpectRefused({good.begin(), good.begin() + static_cast<ptrdiff_t>(size)},
                  "cut to " + std::to_string(size));
  }
  std::vector<uint8_t> longer = good;
  longer.push_back(0);
  ExpectRefused(std::move(longer), "one byte more");
  auto reader = BlockReader::OpenAny(codec_, good);
  ASSERT_TRUE(reader.ok());
  auto shorter = std::make_shared<std::vector<uint8_t>>(good);
  shorter->resize(reader->slices().ObjectBytes(1));
  EXPECT_TRUE(restored_->Restore(Block(1), shorter).ok()) << "two bits of a block are that block";
  EXPECT_EQ(restored_->pages()[1].codes->levels(), 1);
}

// tq_prod is never attended to, whoever stored it; fp8 beside tq is.
TEST_F(Forged, OnlyCodecsForAttentionAreRestored) {
  KvSequence search = NewSequence(codec_, Spec("tq_prod:k4v4")), bytes = NewSequence(codec_, Spec("fp8"));
  writer_.Append(search, tokens_);
  writer_.Append(bytes, tokens_);
  const absl::Status status = restored_->Restore(Block(1), search.blocks()[1].object);
  EXPECT_THAT(std::string(status.message()), HasSubstr("layer 0 is coded as tq_prod"));
  ExpectRefused(*search.blocks()[1].object, "tq_prod");
  EXPECT_TRUE(restored_->Restore(Block(1), bytes.blocks()[1].object).ok());
}

TEST_F(Forged, WrongCallsAreRefusedByName) {
  EXPECT_THAT(std::string(restored_->Restore(Block(1).first(63), Object(1)).message()),
              HasSubstr("63 tokens"));
  EXPECT_EQ(restored_->Restore(Block(1), nullptr).code(), absl::StatusCode::kInvalidArgument);
  std::vector<uint32_t> outside(64, kVocabulary);
  EXPECT_THAT(std::string(restored_->Restore(outside, Object(1)).message()),
              HasSubstr("token 1000 at position 64"));
  writer_.Append(*restored_, Block(1).first(1));
  EXPECT_EQ(restored_->Restore(Block(1), Object(1)).code(), absl::StatusCode::kFailedPrecondition);
}

TEST(KvSequence, ContextIsALimit) {
  const auto codec = SmallCodec();
  KvSequence kv(codec, Spec("tq:k4v4"), nullptr, Digest{}, {.context = 100, .vocabulary = kVocabulary},
                KvSequence::Mode::kServing);
  Writer writer;
  writer.Append(kv, SomeTokens(70));
  const absl::Status status = kv.Reserve(SomeTokens(31));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("100 tokens; 70 are there and 31"));
  EXPECT_EQ(kv.length(), 70u);
  writer.Append(kv, SomeTokens(30));
  EXPECT_EQ(kv.length(), 100u);
}

}  // namespace
}  // namespace quire::worker

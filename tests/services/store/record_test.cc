#include <algorithm>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/store/tier/object_tier.h"

namespace quire::store {
namespace {

Digest Filled(uint8_t byte) {
  Digest d;
  d.bytes.fill(byte);
  return d;
}

ObjectRecord Sample() {
  ObjectRecord r;
  r.fingerprint = Filled(1);
  r.parent = Filled(2);
  r.index = 7;
  r.levels = 2;
  r.ends = {1000, 1500, 2000, 0};
  r.header_bytes = 100;
  r.raw_bytes = 1 << 20;
  r.bf16_bytes = 1 << 20;
  r.priority = -3;
  r.expires_ms = 1234567890123;
  r.codec = "tq:k4v4";
  return r;
}

// Of the right checksum, so that the fields are what is judged.
std::string Sealed(std::string body) {
  uint64_t sum = Xxh3(AsBytes(body));
  body.append(reinterpret_cast<const char*>(&sum), sizeof sum);
  return body;
}
std::string Body(const std::string& record) { return record.substr(0, record.size() - 8); }

TEST(Record, ComesBackAsItWas) {
  ObjectRecord r = Sample();
  EXPECT_TRUE(r.Validate().ok());
  EXPECT_EQ(r.made(), 3u);
  EXPECT_EQ(r.bytes(), 1500u);
  EXPECT_EQ(*ObjectRecord::Parse(AsBytes(r.Serialize())), r);
  r.codec = std::string(kMaxCodecBytes, 'c');
  r.ends[3] = kMaxObjectBytes;
  r.levels = 4;
  EXPECT_EQ(*ObjectRecord::Parse(AsBytes(r.Serialize())), r);
}

// Stored records outlive the program that wrote them: the bytes of version 1 may not change.
TEST(Record, BytesOfVersionOne) {
  std::string hex = HexString(AsBytes(Sample().Serialize()));
  std::string ones(64, '0'), twos(64, '0');
  for (int i = 1; i < 64; i += 2) ones[i] = '1', twos[i] = '2';
  EXPECT_EQ(hex.substr(0, hex.size() - 16), "01" + ones + twos +
                                                "07000000"
                                                "02000000"
                                                "e803000000000000"
                                                "dc05000000000000"
                                                "d007000000000000"
                                                "0000000000000000"
                                                "64000000"
                                                "0000100000000000"
                                                "0000100000000000"
                                                "fdffffff"
                                                "cb04fb711f010000"
                                                "07000000"
                                                "74713a6b347634");
}

TEST(Record, AnyDamagedBitAndAnyCutIsSeen) {
  std::string good = Sample().Serialize();
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_EQ(ObjectRecord::Parse(AsBytes(bad)).status().code(), absl::StatusCode::kDataLoss) << bit;
  }
  for (size_t n = 0; n < good.size(); ++n)
    EXPECT_EQ(ObjectRecord::Parse(AsBytes(good).first(n)).status().code(), absl::StatusCode::kDataLoss) << n;
}

TEST(Record, FieldsThatCannotBeAreDataLossThoughTheChecksumIsRight) {
  auto parse = [](const ObjectRecord& r) {
    return ObjectRecord::Parse(AsBytes(r.Serialize())).status().code();
  };
  for (auto spoil : std::vector<void (*)(ObjectRecord&)>{
           [](ObjectRecord& r) { r.levels = 0; }, [](ObjectRecord& r) { r.levels = 4; },
           [](ObjectRecord& r) { r.levels = UINT32_MAX; }, [](ObjectRecord& r) { r.ends[1] = 1000; },
           [](ObjectRecord& r) { r.ends[2] = 1200; },
           [](ObjectRecord& r) {
             r.ends = {0, 1, 2, 3};
           },
           [](ObjectRecord& r) {
             r.ends = {1000, 0, 2000, 0}, r.levels = 1;
           },
           [](ObjectRecord& r) { r.ends[2] = UINT64_MAX; }, [](ObjectRecord& r) { r.header_bytes = 0; },
           [](ObjectRecord& r) { r.header_bytes = 1000; },
           [](ObjectRecord& r) { r.codec.assign(65, 'x'); }}) {
    ObjectRecord r = Sample();
    spoil(r);
    EXPECT_EQ(r.Validate().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(parse(r), absl::StatusCode::kDataLoss);
  }
  std::string body = Body(Sample().Serialize());
  EXPECT_EQ(ObjectRecord::Parse(AsBytes(Sealed(body + "x"))).status().code(), absl::StatusCode::kDataLoss);
  std::string long_codec = body;
  long_codec.replace(long_codec.size() - 11, 4, "\xff\xff\xff\xff");
  EXPECT_EQ(ObjectRecord::Parse(AsBytes(Sealed(long_codec))).status().code(), absl::StatusCode::kDataLoss);
  std::string newer = body;
  newer[0] = 2;
  EXPECT_EQ(ObjectRecord::Parse(AsBytes(Sealed(newer))).status().code(), absl::StatusCode::kUnimplemented);
}

TEST(Record, RandomBytesNeverParse) {
  std::mt19937 random(5);
  for (int i = 0; i < 20000; ++i) {
    std::string bytes(random() % 300, 0);
    for (char& c : bytes) c = static_cast<char>(random());
    EXPECT_FALSE(ObjectRecord::Parse(AsBytes(bytes)).ok());
    if (!bytes.empty()) bytes[0] = 1;  // and behind a right checksum: whatever comes out is valid
    auto record = ObjectRecord::Parse(AsBytes(Sealed(bytes)));
    EXPECT_TRUE(!record.ok() || record->Validate().ok());
  }
}

TEST(Name, EncodesDecodesAndSortsAsItself) {
  std::mt19937 random(6);
  std::vector<ObjectName> names;
  for (int i = 0; i < 500; ++i) {
    ObjectName n{Filled(static_cast<uint8_t>(random() % 3)), Filled(static_cast<uint8_t>(random() % 4)), {}};
    for (uint32_t* b : {&n.part.layer_begin, &n.part.layer_end, &n.part.head_begin, &n.part.head_end})
      *b = static_cast<uint32_t>(random()) >> (random() % 32);
    EXPECT_EQ(n.Encode().size(), ObjectName::kEncodedBytes);
    EXPECT_TRUE(n.Encode().starts_with(ObjectName::Prefix(n.tenant, n.key)));
    EXPECT_EQ(*ObjectName::Decode(AsBytes(n.Encode())), n);
    names.push_back(n);
  }
  std::sort(names.begin(), names.end());
  for (size_t i = 1; i < names.size(); ++i) EXPECT_LE(names[i - 1].Encode(), names[i].Encode());
  EXPECT_EQ(ObjectName::Prefix(Filled(1), Filled(2)).size(), ObjectName::kPrefixBytes);
  std::string encoded = names[0].Encode();
  EXPECT_FALSE(ObjectName::Decode(AsBytes(encoded.substr(1))));
  EXPECT_FALSE(ObjectName::Decode(AsBytes(encoded + "x")));
  EXPECT_FALSE(ObjectName::Decode({}));
}

}  // namespace
}  // namespace quire::store

// What is particular to the Redis tier: others who write there, what the server may do to us, and forgers.
#include "services/store/redis/redis_tier.h"

#include <sys/mman.h>

#include <CLI/CLI.hpp>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "services/store/redis/slots.h"
#include "tests/services/store/redis/redis_server.h"
#include "tests/services/store/sample_object.h"

namespace quire::store {
namespace {

using absl::StatusCode;
using redis::Ask;
using redis::Eventually;
using redis::RedisServer;
using redis::TierOptions;
using std::chrono::milliseconds;
using testing::HasSubstr;

TierOptions OptionsFor(const std::string& address) {
  TierOptions options;
  options.client.addresses = {address};
  options.client.timeout = milliseconds(5000);
  options.client.last_pause = milliseconds(50);
  return options;
}

std::unique_ptr<RedisTier> Open(const TierOptions& options, FaultPoints* faults = nullptr) {
  auto tier = RedisTier::Create(options, faults);
  EXPECT_TRUE(tier.ok()) << tier.status();
  return *std::move(tier);
}

class RedisTierTest : public testing::Test {
 protected:
  RedisTierTest() : admin_(redis::ClientOf(server_.address())), tier_(Open(OptionsFor(server_.address()))) {}

  std::vector<std::string> Keys(const std::string& pattern = "*") {
    std::vector<std::string> keys;
    for (const redis::Reply& key : Ask(*admin_, {"KEYS", pattern}).elements) keys.push_back(key.text);
    std::sort(keys.begin(), keys.end());
    return keys;
  }
  std::string HashKey() { return Keys("*}").at(0); }
  std::string LevelKey(int level) { return Keys("*:" + std::to_string(level)).at(0); }
  StatusCode FindCode(RedisTier& tier, const SampleObject& o, size_t* found = nullptr) {
    ObjectTier::FindRequest request = FindSample(tier, o.name.tenant, o.name.key);
    if (found != nullptr) *found = request.found.size();
    return request.status.code();
  }

  RedisServer server_;
  std::unique_ptr<redis::Client> admin_;
  std::unique_ptr<RedisTier> tier_;
};

TEST_F(RedisTierTest, TwoStoresShareBlocks) {
  auto other = Open(OptionsFor(server_.address()));
  SampleObject o = MakeSample(1);
  ASSERT_TRUE(WriteSample(*tier_, o).ok());
  EXPECT_TRUE(Holds(*other, o, 4));
  EXPECT_EQ(other->used_bytes(), 0u);  // its own share

  o.record.levels = 2;
  ASSERT_TRUE(other->DropLevels(o.name, o.record).ok());
  EXPECT_TRUE(Holds(*tier_, o, 2));
  EXPECT_EQ(ReadLevels(*tier_, o, 3).status().code(), StatusCode::kNotFound);

  ASSERT_TRUE(other->Remove({&o.name, 1}).ok());
  EXPECT_EQ(ReadLevels(*tier_, o, 1).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(tier_->used_bytes(), 0u) << "the writer learns that it is gone";
  EXPECT_TRUE(Keys().empty());

  TierOptions elsewhere = OptionsFor(server_.address());
  elsewhere.prefix = "elsewhere";
  ASSERT_TRUE(WriteSample(*tier_, o).ok());
  EXPECT_FALSE(Holds(*Open(elsewhere), o, 1));
}

TEST_F(RedisTierTest, KeysOfABlockShareASlotAndNameTheFormat) {
  SampleObject o = MakeSample(2);
  ASSERT_TRUE(WriteSample(*tier_, o).ok());
  std::vector<std::string> keys = Keys();
  ASSERT_EQ(keys.size(), 5u);
  std::string hash = "quire:1:{" + o.name.tenant.Hex() + ":" + o.name.key.Hex() + "}";
  EXPECT_EQ(keys[0], hash);
  for (const std::string& key : keys) {
    EXPECT_TRUE(absl::StartsWith(key, hash));
    EXPECT_EQ(Ask(*admin_, {"PTTL", key}).integer, -1);
  }
}

TEST_F(RedisTierTest, ARecordWithoutALevelIsAMissAndGoes) {
  for (int level = 0; level < 4; ++level) {
    SampleObject o = MakeSample(3);
    ASSERT_TRUE(WriteSample(*tier_, o).ok());
    Ask(*admin_, {"DEL", LevelKey(level)});
    EXPECT_EQ(ReadLevels(*tier_, o, 4).status().code(), StatusCode::kNotFound) << level;
    EXPECT_TRUE(Keys().empty()) << testing::PrintToString(Keys());
    EXPECT_EQ(tier_->used_bytes(), 0u);
    EXPECT_EQ(tier_->counters().incomplete, static_cast<uint64_t>(level + 1));
  }
  // Fewer levels than are missing can still be read.
  SampleObject o = MakeSample(3);
  ASSERT_TRUE(WriteSample(*tier_, o).ok());
  Ask(*admin_, {"DEL", LevelKey(3)});
  EXPECT_TRUE(Holds(*tier_, o, 3));
}

TEST_F(RedisTierTest, WhatIsNoRecordIsDroppedAndANewerOnesIsLeftAlone) {
  SampleObject o = MakeSample(4);
  ASSERT_TRUE(WriteSample(*tier_, o).ok());
  std::string hash = HashKey(), field = o.name.Encode().substr(64);
  std::string raw = Ask(*admin_, {"HGET", hash, field}).text;
  for (size_t at : {size_t{1}, size_t{9}, size_t{10}, size_t{50}, raw.size() - 1}) {
    std::string bent = raw;
    bent[at] = static_cast<char>(bent[at] ^ 0x11);
    if (at == 9) bent = raw.substr(0, 40);
    Ask(*admin_, {"HSET", hash, field, bent});
    EXPECT_EQ(ReadLevels(*tier_, o, 4).status().code(), StatusCode::kDataLoss) << at;
    size_t found = 1;
    EXPECT_EQ(FindCode(*tier_, o, &found), StatusCode::kDataLoss) << at;
    EXPECT_EQ(found, 0u);
    EXPECT_EQ(FindCode(*tier_, o), StatusCode::kOk) << "dropped";
  }
  EXPECT_EQ(tier_->counters().wrong_records, 10u);

  // One bad part beside a good one: the good one is found.
  ASSERT_TRUE(WriteSample(*tier_, o).ok());
  Ask(*admin_, {"HSET", HashKey(), "no part", "junk"});
  size_t found = 0;
  EXPECT_EQ(FindCode(*tier_, o, &found), StatusCode::kOk);
  EXPECT_EQ(found, 1u);
  EXPECT_EQ(Ask(*admin_, {"HLEN", HashKey()}).integer, 1);

  std::string newer = raw;
  newer[0] = 2;
  Ask(*admin_, {"HSET", HashKey(), field, newer});
  EXPECT_EQ(FindCode(*tier_, o, &found), StatusCode::kOk);
  EXPECT_EQ(found, 0u);
  EXPECT_EQ(ReadLevels(*tier_, o, 4).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(tier_->DropLevels(o.name, o.record).code(), StatusCode::kNotFound);
  EXPECT_EQ(Ask(*admin_, {"HGET", HashKey(), field}).text, newer);

  Ask(*admin_, {"FLUSHALL"});
  Ask(*admin_, {"SET", hash, "a string"});
  EXPECT_EQ(FindCode(*tier_, o), StatusCode::kDataLoss);
  EXPECT_EQ(ReadLevels(*tier_, o, 1).status().code(), StatusCode::kDataLoss);
}

TEST_F(RedisTierTest, LevelsOfAnotherLengthAreDataLoss) {
  SampleObject o = MakeSample(5);
  ASSERT_TRUE(WriteSample(*tier_, o).ok());
  Ask(*admin_, {"APPEND", LevelKey(1), "x"});
  absl::Status status = ReadLevels(*tier_, o, 4).status();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status;
  EXPECT_TRUE(Holds(*tier_, o, 1));
  Ask(*admin_, {"DEL", LevelKey(1)});
  Ask(*admin_, {"RPUSH", LevelKey(0) + "x", "1"});
  Ask(*admin_, {"RENAME", LevelKey(0) + "x", LevelKey(0)});
  EXPECT_EQ(ReadLevels(*tier_, o, 1).status().code(), StatusCode::kDataLoss);
}

class RedisSealTest : public RedisTierTest {
 protected:
  RedisSealTest() {
    TierOptions options = OptionsFor(server_.address());
    options.hmac_key_file = redis::WriteFile(folder_, "key", "0123456789abcdef");
    sealed_ = Open(options);
    options.hmac_key_file = redis::WriteFile(folder_, "other", "0123456789abcdeF");
    other_key_ = Open(options);
  }
  StatusCode ReadCode(const SampleObject& o, int levels = 4) {
    return ReadLevels(*sealed_, o, levels).status().code();
  }
  std::string Get(const std::string& key) { return Ask(*admin_, {"GET", key}).text; }

  TempFolder folder_;
  std::unique_ptr<RedisTier> sealed_, other_key_;
};

TEST_F(RedisSealTest, EveryChangedByteOfALevelIsSeen) {
  SampleObject o = MakeSample(6, 2000);
  ASSERT_TRUE(WriteSample(*sealed_, o).ok());
  ASSERT_TRUE(Holds(*sealed_, o, 4));
  std::mt19937 random(3);
  for (int i = 0; i < 60; ++i) {
    std::string key = LevelKey(i % 4), good = Get(key), bad = good;
    bad[random() % bad.size()] ^= static_cast<char>(1 + random() % 255);
    Ask(*admin_, {"SET", key, bad});
    EXPECT_EQ(ReadCode(o), StatusCode::kDataLoss);
    EXPECT_TRUE(i % 4 == 0 || Holds(*sealed_, o, i % 4)) << "levels before it are good";
    Ask(*admin_, {"SET", key, good});
  }
  EXPECT_TRUE(Holds(*sealed_, o, 4));
  o.record.levels = 2;
  ASSERT_TRUE(sealed_->DropLevels(o.name, o.record).ok());
  EXPECT_TRUE(Holds(*sealed_, o, 2));
}

TEST_F(RedisSealTest, BytesOfOtherNamesLevelsAndWritesAreSeen) {
  SampleObject o = MakeSample(7, 4000);
  uint64_t unit = 600;  // all levels equally long
  for (uint64_t l = 0; l < 4; ++l) o.record.ends[l] = (l + 1) * unit;
  o.bytes.resize(4 * unit);
  ASSERT_TRUE(WriteSample(*sealed_, o).ok());
  std::vector<std::string> of_first = Keys();
  std::string one = Get(of_first[1 + 1]), two = Get(of_first[1 + 2]);
  Ask(*admin_, {"SET", of_first[1 + 1], two});
  Ask(*admin_, {"SET", of_first[1 + 2], one});
  EXPECT_EQ(ReadCode(o), StatusCode::kDataLoss) << "levels exchanged";
  Ask(*admin_, {"SET", of_first[1 + 1], one});
  Ask(*admin_, {"SET", of_first[1 + 2], two});
  ASSERT_TRUE(Holds(*sealed_, o, 4));

  // The whole of another object, under this one's name: key, part, tenant.
  std::string raw = Ask(*admin_, {"HGET", of_first[0], o.name.Encode().substr(64)}).text;
  std::string generation = of_first[1].substr(of_first[0].size() + 1, 16);
  for (int what = 0; what < 3; ++what) {
    SampleObject forged = o;
    if (what == 0) forged.name.key.bytes[3] ^= 1;
    if (what == 1) forged.name.tenant.bytes[3] ^= 1;
    if (what == 2) ++forged.name.part.head_end;
    std::string hash = "quire:1:{" + forged.name.tenant.Hex() + ":" + forged.name.key.Hex() + "}";
    Ask(*admin_, {"HSET", hash, forged.name.Encode().substr(64), raw});
    for (int level = 0; level < 4; ++level) {
      std::string tail = ":" + generation + ":" + std::to_string(level);
      Ask(*admin_, {"COPY", of_first[0] + tail, hash + tail});
    }
    EXPECT_TRUE(Holds(*tier_, forged, 4)) << "a store without the key believes it";
    EXPECT_EQ(ReadCode(forged), StatusCode::kDataLoss) << what;
    EXPECT_NE(FindCode(*sealed_, forged), StatusCode::kInternal);
  }
}

TEST_F(RedisSealTest, OtherKeysAndNoKeysAreSeen) {
  SampleObject o = MakeSample(8);
  ASSERT_TRUE(WriteSample(*other_key_, o).ok());
  EXPECT_EQ(ReadCode(o), StatusCode::kDataLoss);
  size_t found = 1;
  EXPECT_EQ(FindCode(*sealed_, o, &found), StatusCode::kDataLoss);
  EXPECT_EQ(found, 0u);
  ASSERT_TRUE(WriteSample(*tier_, o).ok());
  EXPECT_EQ(ReadCode(o), StatusCode::kDataLoss);
  TierOptions options = OptionsFor(server_.address());
  for (const std::string& key : {std::string(), std::string(15, 'x'), std::string(5000, 'x')}) {
    options.hmac_key_file = redis::WriteFile(folder_, "bad", key);
    EXPECT_EQ(RedisTier::Create(options).status().code(), StatusCode::kInvalidArgument);
  }
  options.hmac_key_file = "/nowhere";
  EXPECT_EQ(RedisTier::Create(options).status().code(), StatusCode::kInvalidArgument);
}

TEST(RedisSeal, IsHmacSha256) {
  // RFC 4231's keys of 4, 20 and 131 bytes do what the library's HMAC does.
  for (const std::string& key : {std::string("Jefe"), std::string(20, '\x0b'), std::string(131, '\xaa')}) {
    ObjectName name{SampleDigest("t", 1), SampleDigest("k", 1), {0, 1, 0, 1}};
    std::string bytes = "some bytes";
    Digest expected = HmacSha256(key, "quire.redis.record.v1" + name.Encode() + bytes);
    redis::Seal::Code code = redis::Seal(key).OfRecord(name, AsBytes(bytes));
    EXPECT_TRUE(std::equal(code.begin(), code.end(), expected.bytes.begin()));
  }
}

TEST_F(RedisTierTest, KeysLiveAsLongAsTheObjectThatLivesLongest) {
  TierOptions options = OptionsFor(server_.address());
  options.ttl = std::chrono::seconds(1000);
  auto tier = Open(options);
  int64_t now_ms =
      std::chrono::duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  SampleObject o = MakeSample(10, 2000), sibling = MakeSample(10, 2000);
  o.record.expires_ms = now_ms + 500'000;
  sibling.name.part.layer_end += 5;
  ASSERT_TRUE(WriteSample(*tier, o).ok());
  for (const std::string& key : Keys()) {
    int64_t left = Ask(*admin_, {"PTTL", key}).integer;
    EXPECT_GT(left, 400'000);
    EXPECT_LE(left, 500'000);
  }
  ASSERT_TRUE(WriteSample(*tier, sibling).ok());
  EXPECT_GT(Ask(*admin_, {"PTTL", HashKey()}).integer, 900'000);
  ASSERT_TRUE(WriteSample(*tier, o).ok());
  EXPECT_GT(Ask(*admin_, {"PTTL", HashKey()}).integer, 900'000);
  sibling.name.part.layer_end += 5;
  ASSERT_TRUE(WriteSample(*tier_, sibling).ok());  // for ever
  EXPECT_EQ(Ask(*admin_, {"PTTL", HashKey()}).integer, -1);
  ASSERT_TRUE(WriteSample(*tier, o).ok());
  EXPECT_EQ(Ask(*admin_, {"PTTL", HashKey()}).integer, -1);
}

TEST_F(RedisTierTest, WhatExpiresLeavesTheShare) {
  SampleObject o = MakeSample(11);
  int64_t now_ms =
      std::chrono::duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  o.record.expires_ms = now_ms + 300;
  ASSERT_TRUE(WriteSample(*tier_, o).ok());
  EXPECT_EQ(tier_->used_bytes(), tier_->Charge(o.record));
  EXPECT_TRUE(Eventually([&] { return !Holds(*tier_, o, 1) && tier_->used_bytes() == 0; }));
  EXPECT_TRUE(Eventually([&] { return Keys().empty(); }));
}

TEST_F(RedisTierTest, AFullServerIsResourceExhaustedAndNothingIsLeftBehind) {
  RedisServer small({.arguments = {"--maxmemory", "8mb", "--maxmemory-policy", "noeviction"}});
  auto tier = Open(OptionsFor(small.address()));
  auto admin = redis::ClientOf(small.address());
  std::vector<SampleObject> kept;
  absl::Status status;
  for (uint32_t i = 0; i < 40; ++i) {
    SampleObject o = MakeSample(100 + i, 400'000);
    status = WriteSample(*tier, o);
    if (!status.ok()) break;
    kept.push_back(o);
  }
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status;
  ASSERT_GT(kept.size(), 3u);
  EXPECT_EQ(Ask(*admin, {"DBSIZE"}).integer, static_cast<int64_t>(5 * kept.size()));
  uint64_t charged = 0;
  for (const SampleObject& o : kept) {
    EXPECT_TRUE(Holds(*tier, o, 4));
    charged += tier->Charge(o.record);
  }
  EXPECT_EQ(tier->used_bytes(), charged);
  // Dropping, removing and finding work in a full server, and make room.
  kept[0].record.levels = 1;
  EXPECT_TRUE(tier->DropLevels(kept[0].name, kept[0].record).ok());
  EXPECT_TRUE(tier->Remove({&kept[1].name, 1}).ok());
  EXPECT_TRUE(Eventually([&] { return WriteSample(*tier, kept[1]).ok(); }));
}

TEST_F(RedisTierTest, ValuesBeyondWhatRedisTakesAreRefused) {
  SampleObject o = MakeSample(12);
  o.record.levels = 1;
  o.record.ends = {redis::kMaxValueBytes + 1, 0, 0, 0};
  void* nothing =
      mmap(nullptr, o.record.bytes(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(nothing, MAP_FAILED);
  absl::Status status =
      tier_->Write(o.name, o.record, {static_cast<const uint8_t*>(nothing), o.record.bytes()});
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("536870913"));
  EXPECT_EQ(tier_->used_bytes(), 0u);
  munmap(nothing, o.record.bytes());
}

TEST_F(RedisTierTest, WrongPasswordsAreNamedByCheckAndAFailingMediumToTheRest) {
  RedisServer guarded({.arguments = {"--requirepass", "s3cret"}});
  TempFolder folder;
  TierOptions options = OptionsFor(guarded.address());
  options.client.password_file = redis::WriteFile(folder, "password", "guess");
  auto tier = Open(options);
  EXPECT_EQ(tier->Check().code(), StatusCode::kUnauthenticated);
  SampleObject o = MakeSample(13);
  EXPECT_EQ(WriteSample(*tier, o).code(), StatusCode::kUnavailable);
  EXPECT_EQ(ReadLevels(*tier, o, 1).status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(FindCode(*tier, o), StatusCode::kUnavailable);
  EXPECT_EQ(tier->Remove({&o.name, 1}).code(), StatusCode::kUnavailable);
  EXPECT_EQ(tier->used_bytes(), 0u);
}

TEST_F(RedisTierTest, AStoppedServerFailsEveryCallInTimeAndIsUsedAgain) {
  TierOptions options = OptionsFor(server_.address());
  options.client.timeout = milliseconds(200);
  options.slowest_bytes_per_second = 1 << 30;
  auto tier = Open(options);
  SampleObject o = MakeSample(14, 6 << 20);
  ASSERT_TRUE(WriteSample(*tier, o).ok());
  server_.Stop();
  auto before = redis::Clock::now();
  for (const absl::Status& status : {WriteSample(*tier, o), ReadLevels(*tier, o, 4).status(),
                                     FindSample(*tier, o.name.tenant, o.name.key).status,
                                     tier->DropLevels(o.name, o.record), tier->Remove({&o.name, 1})})
    EXPECT_TRUE(absl::IsDeadlineExceeded(status) || absl::IsUnavailable(status)) << status;
  EXPECT_LT(redis::Clock::now() - before, milliseconds(5000));
  server_.Continue();
  EXPECT_TRUE(Eventually([&] { return Holds(*tier, o, 4); }));
}

TEST_F(RedisTierTest, FaultPointsStrike) {
  if (!FaultPoints::kBuiltIn) GTEST_SKIP();
  FaultPoints faults;
  TempFolder folder;
  TierOptions options = OptionsFor(server_.address());
  options.client.timeout = milliseconds(200);
  options.hmac_key_file = redis::WriteFile(folder, "key", "0123456789abcdef");
  auto tier = Open(options, &faults);
  SampleObject o = MakeSample(15, 2000);
  ASSERT_TRUE(WriteSample(*tier, o).ok());
  ASSERT_TRUE(faults.Arm("redis_down", 1).ok());
  EXPECT_EQ(ReadLevels(*tier, o, 4).status().code(), StatusCode::kUnavailable);
  ASSERT_TRUE(faults.Arm("redis_half_open", 1).ok());
  EXPECT_EQ(ReadLevels(*tier, o, 4).status().code(), StatusCode::kDeadlineExceeded);
  ASSERT_TRUE(faults.Arm("redis_slow", 1, 100).ok());
  auto before = redis::Clock::now();
  EXPECT_TRUE(Holds(*tier, o, 4));
  EXPECT_GE(redis::Clock::now() - before, milliseconds(100));
  ASSERT_TRUE(faults.Arm("corrupt_byte", 1, 1000).ok());
  EXPECT_EQ(ReadLevels(*tier, o, 4).status().code(), StatusCode::kDataLoss);
  EXPECT_TRUE(Holds(*tier, o, 4));
}

TEST(RedisFlags, AreParsed) {
  CLI::App app;
  TierOptions options;
  redis::AddRedisFlags(app, options);
  app.parse(
      "--redis-address a:1 --redis-address b:2 --redis-cluster --redis-user u --redis-password-file p "
      "--redis-tls-ca c --redis-tls-cert d --redis-tls-key k --redis-hmac-file h --redis-ttl 60 "
      "--redis-timeout-ms 250 --redis-bytes 2GiB --redis-connections 3 --redis-prefix x");
  EXPECT_THAT(options.client.addresses, testing::ElementsAre("a:1", "b:2"));
  EXPECT_TRUE(options.client.cluster);
  EXPECT_EQ(options.client.user, "u");
  EXPECT_EQ(options.client.tls_certificate, "d");
  EXPECT_EQ(options.hmac_key_file, "h");
  EXPECT_EQ(options.ttl, std::chrono::seconds(60));
  EXPECT_EQ(options.client.timeout, milliseconds(250));
  EXPECT_EQ(options.capacity_bytes, uint64_t{2} << 30);
  EXPECT_EQ(options.client.connections, 3u);
  EXPECT_EQ(options.prefix, "x");
  EXPECT_THROW(app.parse("--redis-timeout-ms 0"), CLI::ParseError);
  for (const char* prefix : {"", "a:b", "a{b"}) {
    TierOptions bad = OptionsFor("h:1");
    bad.prefix = prefix;
    EXPECT_EQ(RedisTier::Create(bad).status().code(), StatusCode::kInvalidArgument);
  }
}

// A block's slot moves key by key while stores write, read, drop and remove it.
TEST(RedisClusterTier, GoesOnWhileSlotsMove) {
  redis::RedisCluster cluster;
  TierOptions options = OptionsFor(cluster.addresses()[0]);
  options.client.cluster = true;
  auto tier = Open(options), other = Open(options);
  SampleObject o = MakeSample(20, 4000), newer = MakeSample(20, 4000, 1);
  std::string hash = "quire:1:{" + o.name.tenant.Hex() + ":" + o.name.key.Hex() + "}";
  uint16_t slot = redis::KeySlot(hash);
  size_t from = cluster.OwnerOf(slot), to = (from + 1) % 3;
  ASSERT_TRUE(WriteSample(*tier, o).ok());
  cluster.BeginMove(slot, from, to);
  std::vector<std::string> keys;
  for (const redis::Reply& key : Ask(cluster.admin(from), {"KEYS", "*"}).elements) keys.push_back(key.text);
  ASSERT_EQ(keys.size(), 5u);
  for (const std::string& key : keys) {
    cluster.MoveKey(key, from, to);
    EXPECT_TRUE(Holds(*tier, o, 4)) << key;
    EXPECT_TRUE(Holds(*other, o, 4)) << key;
  }
  EXPECT_GT(tier->counters().client.asked, 0u);
  ASSERT_TRUE(WriteSample(*other, newer).ok());
  EXPECT_TRUE(Holds(*tier, newer, 4));
  newer.record.levels = 3;
  ASSERT_TRUE(tier->DropLevels(newer.name, newer.record).ok());
  EXPECT_TRUE(Holds(*other, newer, 3));
  EXPECT_EQ(tier->counters().client.moved, 0u);
  cluster.EndMove(slot, from, to);
  EXPECT_TRUE(Holds(*tier, newer, 3));
  EXPECT_EQ(tier->counters().client.moved, 1u);
  ASSERT_TRUE(tier->Remove({&newer.name, 1}).ok());
  for (size_t node : {from, to}) EXPECT_EQ(Ask(cluster.admin(node), {"DBSIZE"}).integer, 0);
}

}  // namespace
}  // namespace quire::store

// Stores that share a Redis: each serves what any wrote, to the tenants whose it is.
#include "gmock/gmock.h"
#include "services/store/engine/local_store.h"
#include "services/store/redis/redis_tier.h"
#include "tests/services/store/redis/redis_server.h"
#include "tests/services/store/sample_chain.h"

namespace quire::store {
namespace {

using absl::StatusCode;
using std::chrono::milliseconds;
constexpr milliseconds kPatience{20'000};

class SharedStores : public testing::Test {
 protected:
  std::shared_ptr<LocalStore> Store(uint64_t host_bytes = 4 << 20,
                                    const std::string& secret = "0123456789abcdef", uint64_t scrub = 0) {
    redis::TierOptions redis;
    redis.client.addresses = {server_.address()};
    redis.client.timeout = milliseconds(5000);
    LocalStoreOptions options;
    options.host_bytes = host_bytes;
    options.tenant_secret = secret;
    options.fence.consecutive_failures = 2;
    options.scrub.bytes_per_second = scrub;
    options.scrub.least_round_ms = 1;
    options.lower.push_back(*RedisTier::Create(redis));
    return *LocalStore::Create(options);
  }

  redis::RedisServer server_;
};

TEST_F(SharedStores, AnyStoreServesWhatAnotherWrote) {
  SampleChain chain(SampleLayout(), 20);
  auto writer = Store();
  ASSERT_TRUE(PutChain(*writer, chain, "a").ok());
  ASSERT_TRUE(writer->AwaitMoved(kPatience).ok());
  auto reader = Store();
  ASSERT_TRUE(reader->RegisterLayout(chain.layout).ok());
  LookupResult found = *reader->Lookup(chain.ns("a"), chain.keys(), {});
  EXPECT_EQ(found.prefix_blocks, 20u);
  for (const BlockState& state : found.blocks) {
    EXPECT_EQ(state.tier, Tier::kRedis);
    EXPECT_EQ(state.levels, 3u);
    EXPECT_GT(state.fetch_us, 0u);
  }
  EXPECT_EQ(GetAll(*reader, chain.ns("a"), chain.identities).objects, chain.objects);
  found = *reader->Lookup(chain.ns("a"), chain.keys(), {});
  for (const BlockState& state : found.blocks)
    EXPECT_EQ(state.tier, Tier::kHost);  // brought here by the reading
  // What a third tenant sees of it, and a store with another secret: nothing.
  EXPECT_EQ(StoredPrefix(*reader, chain, "b"), 0u);
  EXPECT_EQ(GetAll(*reader, chain.ns("b"), chain.identities).misses[0], StatusCode::kNotFound);
  auto stranger = Store(4 << 20, "another secret 16");
  ASSERT_TRUE(stranger->RegisterLayout(chain.layout).ok());
  EXPECT_EQ(StoredPrefix(*stranger, chain, "a"), 0u);
}

TEST_F(SharedStores, APrefixMayBePartlyHereAndPartlyThere) {
  SampleChain chain(SampleLayout(), 30);
  auto first = Store();
  ASSERT_TRUE(PutChain(*first, chain).ok());
  ASSERT_TRUE(first->AwaitMoved(kPatience).ok());
  auto second = Store();
  ASSERT_TRUE(second->RegisterLayout(chain.layout).ok());
  GetAll(*second, chain.ns(), std::span(chain.identities).first(7));
  LookupResult found = *second->Lookup(chain.ns(), chain.keys(), {});
  EXPECT_EQ(found.prefix_blocks, 30u);
  EXPECT_EQ(found.blocks[6].tier, Tier::kHost);
  EXPECT_EQ(found.blocks[7].tier, Tier::kRedis);
  LookupOptions all;
  all.all = true;
  std::vector<Digest> keys = chain.keys();
  keys[3].bytes[0] ^= 1;
  keys[20].bytes[0] ^= 1;
  found = *second->Lookup(chain.ns(), keys, all);
  EXPECT_EQ(found.prefix_blocks, 3u);
  EXPECT_EQ(found.blocks[20].state, BlockState::kMiss);
  EXPECT_EQ(found.blocks[29].state, BlockState::kHit);
}

TEST_F(SharedStores, WrongParentsAndIndicesAreMisses) {
  SampleChain chain(SampleLayout(), 2);
  auto writer = Store();
  ASSERT_TRUE(PutChain(*writer, chain).ok());
  ASSERT_TRUE(writer->AwaitMoved(kPatience).ok());
  auto reader = Store();
  ASSERT_TRUE(reader->RegisterLayout(chain.layout).ok());
  std::vector<BlockIdentity> wrong = chain.identities;
  wrong[1].index = 5;
  wrong[0].parent.bytes[0] ^= 1;
  Gotten gotten = GetAll(*reader, chain.ns(), wrong);
  EXPECT_EQ(gotten.misses[0], StatusCode::kNotFound);
  EXPECT_EQ(gotten.misses[1], StatusCode::kNotFound);
}

// What this store wrote there and somebody spoilt is found and removed though nobody asks for it.
TEST_F(SharedStores, TheScrubLooksIntoRedis) {
  SampleChain chain(SampleLayout(), 6);
  auto store = Store(4 << 20, "0123456789abcdef", /*scrub=*/uint64_t{1} << 30);
  ASSERT_TRUE(PutChain(*store, chain).ok());
  ASSERT_TRUE(store->AwaitMoved(kPatience).ok());
  auto admin = redis::ClientOf(server_.address());
  std::string spoilt;  // one level of one block: another string of its length
  for (const redis::Reply& key : redis::Ask(*admin, {"KEYS", "*"}).elements) {
    if (!redis::Ask(*admin, {"TYPE", key.text}).text.starts_with("string")) continue;
    spoilt = key.text;
    redis::Ask(*admin, {"SETRANGE", spoilt, "1000", "these bytes are none of the block's"});
    break;
  }
  ASSERT_NE(spoilt, "");
  uint32_t tenant = *store->TenantToWatch("");
  auto until = std::chrono::steady_clock::now() + kPatience;
  StoreEvent removed;
  for (uint64_t next = 1; removed.kind != StoreEvent::Kind::kRemoved; ++next) {
    auto events = store->events().Read(tenant, next, 1, until);
    ASSERT_TRUE(events.ok()) << events.status();
    ASSERT_FALSE(events->empty()) << "nothing was removed";
    removed = events->front();
  }
  EXPECT_EQ(removed.tier, Tier::kRedis);
  EXPECT_NE(spoilt.find(removed.key.Hex()), std::string::npos);
  EXPECT_TRUE(redis::Eventually([&] { return redis::Ask(*admin, {"EXISTS", spoilt}).integer == 0; }));
  EXPECT_EQ(StoredPrefix(*store, chain), 6u);  // memory still has it
}

TEST_F(SharedStores, AServerThatDiesCostsMissesOnly) {
  SampleChain chain(SampleLayout(), 4), other(SampleLayout(), 4, "tq:k4v4", 2);
  auto store = Store();
  ASSERT_TRUE(PutChain(*store, chain).ok());
  ASSERT_TRUE(store->AwaitMoved(kPatience).ok());
  server_.Kill();
  EXPECT_EQ(StoredPrefix(*store, chain), 4u);
  EXPECT_EQ(GetAll(*store, chain.ns(), chain.identities).objects, chain.objects);
  ASSERT_TRUE(PutChain(*store, other).ok());
  EXPECT_EQ(StoredPrefix(*store, SampleChain(SampleLayout(), 2, "tq:k4v4", 9)), 0u);
  EXPECT_EQ(GetAll(*store, other.ns(), other.identities).objects, other.objects);
}

}  // namespace
}  // namespace quire::store

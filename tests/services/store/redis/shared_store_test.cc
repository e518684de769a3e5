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
                                    const std::string& secret = "0123456789abcdef") {
    redis::TierOptions redis;
    redis.client.addresses = {server_.address()};
    redis.client.timeout = milliseconds(5000);
    LocalStoreOptions options;
    options.host_bytes = host_bytes;
    options.tenant_secret = secret;
    options.fence.consecutive_failures = 2;
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

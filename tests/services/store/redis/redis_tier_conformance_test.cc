// The suite of all lasting tiers on a single server, with HMACs, and on a cluster.
#include "services/store/redis/redis_tier.h"
#include "tests/services/store/object_tier_conformance.h"
#include "tests/services/store/redis/redis_server.h"

namespace quire::store {
namespace {

// Servers live until the process ends; each tier has a prefix of its own.
std::shared_ptr<ObjectTier> Open(const std::vector<std::string>& addresses, bool cluster, bool sealed,
                                 uint64_t capacity) {
  static TempFolder* folder = new TempFolder;
  static int opened = 0;
  redis::TierOptions options;
  options.client.addresses = addresses;
  options.client.cluster = cluster;
  options.client.timeout = std::chrono::seconds(10);
  options.capacity_bytes = capacity;
  options.prefix = "test" + std::to_string(++opened);
  if (sealed) options.hmac_key_file = redis::WriteFile(*folder, "key", std::string(32, 'k'));
  auto tier = RedisTier::Create(options);
  EXPECT_TRUE(tier.ok()) << tier.status();
  if (!tier.ok()) return nullptr;
  return *std::move(tier);
}

redis::RedisServer& Server() {
  static auto* server = new redis::RedisServer;
  return *server;
}
redis::RedisCluster& Cluster() {
  static auto* cluster = new redis::RedisCluster;
  return *cluster;
}

INSTANTIATE_TEST_SUITE_P(
    Redis, ObjectTierConformance,
    testing::Values(
        TierBackend{"tcp", [](uint64_t c) { return Open({Server().address()}, false, false, c); }},
        TierBackend{"sealed", [](uint64_t c) { return Open({Server().unix_address()}, false, true, c); }},
        TierBackend{"cluster", [](uint64_t c) { return Open(Cluster().addresses(), true, false, c); }}),
    BackendName);

}  // namespace
}  // namespace quire::store

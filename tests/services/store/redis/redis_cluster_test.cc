// The client and a cluster of three real nodes: slots that move, nodes that die and come back.
#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "services/store/redis/client.h"
#include "services/store/redis/slots.h"
#include "tests/services/store/redis/redis_server.h"

namespace quire::store::redis {
namespace {

using absl::StatusCode;
using std::chrono::milliseconds;
using Type = Reply::Type;

class RedisClusterTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { cluster_ = new RedisCluster; }
  static void TearDownTestSuite() { delete cluster_; }

  RedisClusterTest() { client_ = NewClient({cluster_->addresses()[0]}); }

  static std::unique_ptr<Client> NewClient(std::vector<std::string> addresses) {
    ClientOptions options;
    options.addresses = std::move(addresses);
    options.cluster = true;
    options.timeout = milliseconds(2000);
    options.last_pause = milliseconds(50);
    auto client = Client::Create(options);
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }

  static Request Of(const std::string& key, const std::vector<std::string_view>& command) {
    Request request;
    request.command = Command(command);
    request.slot = KeySlot(key);
    return request;
  }
  Reply AskFor(const std::string& key, const std::vector<std::string_view>& command) {
    return Ask(*client_, command, KeySlot(key));
  }
  static RedisCluster* cluster_;
  std::unique_ptr<Client> client_;
};
RedisCluster* RedisClusterTest::cluster_ = nullptr;

TEST_F(RedisClusterTest, SplitsBatchesByNodeAndFindsEveryNodeFromOne) {
  std::vector<std::string> keys;
  std::vector<Request> sets, gets;
  for (int i = 0; i < 600; ++i) keys.push_back(absl::StrCat("split", i));
  for (const std::string& key : keys) {
    sets.push_back(Of(key, {"SET", key, key}));
    gets.push_back(Of(key, {"GET", key}));
  }
  client_->Execute(sets, Clock::now() + milliseconds(5000));
  client_->Execute(gets, Clock::now() + milliseconds(5000));
  for (size_t i = 0; i < keys.size(); ++i) EXPECT_EQ(gets[i].reply.text, keys[i]) << gets[i].status;
  EXPECT_EQ(client_->counters().moved, 0u);
  for (size_t n = 0; n < 3; ++n) EXPECT_GT(Ask(cluster_->admin(n), {"DBSIZE"}).integer, 100);
}

TEST_F(RedisClusterTest, FollowsASlotWhileItMovesAndAfterwards) {
  std::string here = "{moves}here", there = "{moves}there", fresh = "{moves}fresh";
  uint16_t slot = KeySlot(here);
  size_t from = cluster_->OwnerOf(slot), to = (from + 1) % 3;
  for (const std::string& key : {here, there}) EXPECT_EQ(AskFor(key, {"SET", key, "v-" + key}).text, "OK");

  cluster_->BeginMove(slot, from, to);
  cluster_->MoveKey(there, from, to);
  EXPECT_EQ(AskFor(here, {"GET", here}).text, "v-" + here);
  EXPECT_EQ(client_->counters().asked, 0u);
  EXPECT_EQ(AskFor(there, {"GET", there}).text, "v-" + there);
  EXPECT_EQ(client_->counters().asked, 1u);
  EXPECT_EQ(AskFor(fresh, {"SET", fresh, "new"}).text, "OK");  // made where the slot goes
  EXPECT_EQ(client_->counters().asked, 2u);

  // Values that are placed, in one batch that both nodes answer.
  std::vector<std::vector<uint8_t>> out(3);
  std::vector<Request> gets;
  std::vector<std::string> keys = {here, there, fresh}, wanted = {"v-" + here, "v-" + there, "new"};
  for (size_t i = 0; i < keys.size(); ++i) {
    out[i].resize(wanted[i].size());
    gets.push_back(Of(keys[i], {"GET", keys[i]}));
    gets.back().into = out[i];
  }
  client_->Execute(gets, Clock::now() + milliseconds(5000));
  for (size_t i = 0; i < keys.size(); ++i) {
    EXPECT_EQ(gets[i].reply.type, Type::kPlaced);
    EXPECT_EQ(AsString(out[i]), wanted[i]);
  }
  EXPECT_EQ(client_->counters().moved, 0u);

  cluster_->MoveKey(here, from, to);
  cluster_->EndMove(slot, from, to);
  for (const std::string& key : {here, there}) EXPECT_EQ(AskFor(key, {"GET", key}).text, "v-" + key);
  EXPECT_EQ(client_->counters().moved, 1u) << "the second command knows already";
  EXPECT_EQ(NewClient(cluster_->addresses())->counters().moved, 0u);

  // Back, as the other tests find it.
  cluster_->BeginMove(slot, to, from);
  for (const std::string& key : keys) cluster_->MoveKey(key, to, from);
  cluster_->EndMove(slot, to, from);
  EXPECT_EQ(AskFor(here, {"GET", here}).text, "v-" + here);
}

TEST_F(RedisClusterTest, TriesAgainWhatNeedsKeysOfBothNodes) {
  std::string a = "{again}a", b = "{again}b";
  uint16_t slot = KeySlot(a);
  size_t from = cluster_->OwnerOf(slot), to = (from + 1) % 3;
  EXPECT_EQ(AskFor(a, {"MSET", a, "1", b, "2"}).text, "OK");
  cluster_->BeginMove(slot, from, to);
  cluster_->MoveKey(b, from, to);

  // Without an end to the move it ends with its deadline.
  Request impossible = Of(a, {"MGET", a, b});
  client_->Execute({&impossible, 1}, Clock::now() + milliseconds(100));
  EXPECT_EQ(impossible.reply.status().code(), StatusCode::kUnavailable);
  EXPECT_GE(client_->counters().tried_again, 1u);

  Request both = Of(a, {"MGET", a, b});
  uint64_t before = client_->counters().tried_again;
  std::thread asker([&] { client_->Execute({&both, 1}, Clock::now() + milliseconds(20'000)); });
  EXPECT_TRUE(Eventually([&] { return client_->counters().tried_again > before; }));
  cluster_->MoveKey(a, from, to);
  cluster_->EndMove(slot, from, to);
  asker.join();
  ASSERT_EQ(both.reply.elements.size(), 2u) << both.status << both.reply.text;
  EXPECT_EQ(both.reply.elements[1].text, "2");
  cluster_->BeginMove(slot, to, from);
  for (const std::string& key : {a, b}) cluster_->MoveKey(key, to, from);
  cluster_->EndMove(slot, to, from);
}

TEST_F(RedisClusterTest, LosesOnlyWhatADeadNodeHeldAndFindsItAgain) {
  std::vector<std::string> keys;
  for (int i = 0; i < 60; ++i) keys.push_back(absl::StrCat("dead", i));
  auto run = [&] {
    std::vector<Request> pings;
    for (const std::string& key : keys) pings.push_back(Of(key, {"EXISTS", key}));
    client_->Execute(pings, Clock::now() + milliseconds(2000));
    return pings;
  };
  for (const Request& request : run()) ASSERT_TRUE(request.status.ok()) << request.status;
  cluster_->node(1).Kill();
  std::vector<Request> requests = run();
  for (size_t i = 0; i < keys.size(); ++i) {
    bool dead = cluster_->OwnerOf(KeySlot(keys[i])) == 1;
    EXPECT_EQ(requests[i].status.code(), dead ? StatusCode::kUnavailable : StatusCode::kOk) << keys[i];
  }
  cluster_->node(1).Restart();
  EXPECT_TRUE(Eventually([&] { return cluster_->Healthy(); }));
  EXPECT_TRUE(Eventually([&] {
    std::vector<Request> again = run();
    return std::all_of(again.begin(), again.end(),
                       [](const Request& r) { return r.status.ok() && r.reply.is(Type::kInteger); });
  }));
}

TEST_F(RedisClusterTest, AReplicaTakesOverFromItsMaster) {
  RedisServer replica({.arguments = {}, .cluster = true});
  auto admin = ClientOf(replica.address());
  std::string bus = Ask(cluster_->admin(0), {"CONFIG", "GET", "cluster-port"}).elements.at(1).text;
  std::string port = absl::StrCat(cluster_->node(0).port()), master = cluster_->id(2);
  EXPECT_EQ(Ask(*admin, {"CLUSTER", "MEET", "127.0.0.1", port, bus}).text, "OK");
  EXPECT_TRUE(Eventually([&] { return Ask(*admin, {"CLUSTER", "REPLICATE", master}).text == "OK"; }));
  EXPECT_TRUE(Eventually([&] {
    return Ask(*admin, {"INFO", "replication"}).text.find("master_link_status:up") != std::string::npos;
  })) << replica.log();
  EXPECT_TRUE(Eventually([&] {
    return Ask(cluster_->admin(0), {"CLUSTER", "NODES"}).text.find("slave " + master) != std::string::npos;
  }));

  std::string key = "failover";
  for (int i = 0; cluster_->OwnerOf(KeySlot(key)) != 2; ++i) key = absl::StrCat("failover", i);
  EXPECT_EQ(AskFor(key, {"SET", key, "kept"}).text, "OK");
  EXPECT_EQ(AskFor(key, {"WAIT", "1", "5000"}).integer, 1);
  cluster_->node(2).Kill();
  // Votes take the node time-out and a moment more.
  EXPECT_TRUE(Eventually([&] { return AskFor(key, {"GET", key}).text == "kept"; })) << replica.log();
  EXPECT_EQ(AskFor(key, {"SET", key, "new"}).text, "OK");
}

TEST(RedisClusterDownTest, AClusterThatIsNotThereIsUnavailable) {
  ClientOptions options;
  options.addresses = {absl::StrCat("127.0.0.1:", FreePort()), absl::StrCat("127.0.0.1:", FreePort())};
  options.cluster = true;
  auto client = *Client::Create(options);
  EXPECT_THAT(Ask(*client, {"GET", "k"}, 5).text,
              testing::HasSubstr("no node tells the redis cluster's slots"));
  // A server that is no cluster's.
  RedisServer single;
  options.addresses = {single.address()};
  EXPECT_THAT(Ask(**Client::Create(options), {"GET", "k"}, 5).text,
              testing::HasSubstr("cluster support disabled"));
}

}  // namespace
}  // namespace quire::store::redis

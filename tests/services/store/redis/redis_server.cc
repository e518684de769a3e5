#include "tests/services/store/redis/redis_server.h"

#include <fstream>
#include <stdexcept>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/store/redis/slots.h"

namespace quire::store::redis {
namespace {

constexpr uint32_t kNodes = 3;

}  // namespace

std::string WriteFile(const TempFolder& folder, const std::string& name, const std::string& contents) {
  std::string path = folder.path() + "/" + name;
  std::ofstream(path, std::ios::binary) << contents;
  return path;
}

RedisServer::RedisServer(ProcessOptions options) {
  auto process = RedisProcess::Start(folder_.path(), std::move(options));
  EXPECT_TRUE(process.ok()) << process.status();
  if (!process.ok()) throw std::runtime_error("a test without its redis-server");
  process_ = *std::move(process);
}

void RedisServer::Restart() {
  absl::Status status = process_->Restart();
  EXPECT_TRUE(status.ok()) << status;
}

std::unique_ptr<Client> ClientOf(const std::string& address) {
  ClientOptions options;
  options.addresses = {address};
  options.connections = 1;
  options.timeout = std::chrono::seconds(5);
  auto client = Client::Create(options);
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

Reply Ask(Client& client, const std::vector<std::string_view>& command, uint16_t slot) {
  Request request;
  request.command = Command(command);
  request.slot = slot;
  client.Execute({&request, 1}, Clock::now() + std::chrono::seconds(5));
  if (!request.status.ok()) {
    request.reply.type = Reply::Type::kError;
    request.reply.text = std::string(request.status.message());
  }
  return std::move(request.reply);
}

bool Eventually(const std::function<bool()>& condition) {
  auto end = Clock::now() + std::chrono::seconds(10);
  while (Clock::now() < end) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // between questions
  }
  return false;
}

RedisCluster::RedisCluster() {
  for (uint32_t i = 0; i < kNodes; ++i) {
    nodes_.push_back(std::make_unique<RedisServer>(ProcessOptions{.arguments = {}, .cluster = true}));
    admins_.push_back(ClientOf(nodes_[i]->address()));
    std::string first = absl::StrCat(i * kSlots / kNodes), last = absl::StrCat((i + 1) * kSlots / kNodes - 1);
    EXPECT_EQ(Ask(*admins_[i], {"CLUSTER", "ADDSLOTSRANGE", first, last}).text, "OK");
    EXPECT_EQ(Ask(*admins_[i], {"CLUSTER", "SET-CONFIG-EPOCH", absl::StrCat(i + 1)}).text, "OK");
  }
  for (uint32_t i = 1; i < kNodes; ++i) {
    std::string info = Ask(*admins_[0], {"CONFIG", "GET", "cluster-port"}).elements.at(1).text;
    std::string port = absl::StrCat(nodes_[0]->port());
    EXPECT_EQ(Ask(*admins_[i], {"CLUSTER", "MEET", "127.0.0.1", port, info}).text, "OK");
  }
  EXPECT_TRUE(Eventually([this] { return Healthy(); })) << nodes_[0]->log();
}

bool RedisCluster::Healthy() {
  for (const auto& admin : admins_) {
    std::string info = Ask(*admin, {"CLUSTER", "INFO"}).text;
    for (const char* part : {"cluster_state:ok", "cluster_slots_ok:16384", "cluster_known_nodes:3"}) {
      if (info.find(part) == std::string::npos) return false;
    }
  }
  return true;
}

std::string RedisCluster::id(size_t i) { return Ask(*admins_[i], {"CLUSTER", "MYID"}).text; }

size_t RedisCluster::OwnerOf(uint16_t slot) {
  for (size_t i = 0; i < kNodes; ++i) {
    if (slot < (i + 1) * kSlots / kNodes) return i;
  }
  return kNodes - 1;
}

void RedisCluster::BeginMove(uint16_t slot, size_t from, size_t to) {
  std::string s = absl::StrCat(slot);
  EXPECT_EQ(Ask(*admins_[to], {"CLUSTER", "SETSLOT", s, "IMPORTING", id(from)}).text, "OK");
  EXPECT_EQ(Ask(*admins_[from], {"CLUSTER", "SETSLOT", s, "MIGRATING", id(to)}).text, "OK");
}

void RedisCluster::MoveKey(const std::string& key, size_t from, size_t to) {
  std::string port = absl::StrCat(nodes_[to]->port());
  EXPECT_EQ(Ask(*admins_[from], {"MIGRATE", "127.0.0.1", port, key, "0", "5000"}).text, "OK");
}

void RedisCluster::EndMove(uint16_t slot, size_t from, size_t to) {
  std::string s = absl::StrCat(slot), owner = id(to);
  EXPECT_EQ(Ask(*admins_[to], {"CLUSTER", "SETSLOT", s, "NODE", owner}).text, "OK");
  EXPECT_EQ(Ask(*admins_[from], {"CLUSTER", "SETSLOT", s, "NODE", owner}).text, "OK");
}

std::vector<std::string> RedisCluster::addresses() const {
  std::vector<std::string> addresses;
  for (const auto& node : nodes_) addresses.push_back(node->address());
  return addresses;
}

}  // namespace quire::store::redis

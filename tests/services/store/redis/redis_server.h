// Real servers of a test's own, single and in clusters, and what tests ask of them.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "services/store/redis/client.h"
#include "tests/services/store/redis/redis_process.h"
#include "tests/services/store/temp_folder.h"

namespace quire::store::redis {

// Writes a file into a folder; returns its path.
std::string WriteFile(const TempFolder& folder, const std::string& name, const std::string& contents);

// A server that fails its test if it does not start.
class RedisServer {
 public:
  explicit RedisServer(ProcessOptions options = {});

  void Kill() { process_->Kill(); }
  void Restart();
  void Stop() { process_->Stop(); }
  void Continue() { process_->Continue(); }

  std::string address() const { return process_->address(); }
  std::string unix_address() const { return process_->unix_address(); }
  int port() const { return process_->port(); }
  std::string log() { return process_->log(); }

 private:
  TempFolder folder_;
  std::unique_ptr<RedisProcess> process_;
};

// A client of one server with short time-outs, and one command through it.
std::unique_ptr<Client> ClientOf(const std::string& address);
Reply Ask(Client& client, const std::vector<std::string_view>& command, uint16_t slot = 0);

// Calls `condition` until it is true or ten seconds are over; what it asks should itself wait for an answer.
bool Eventually(const std::function<bool()>& condition);

// Three masters with all slots between them.
class RedisCluster {
 public:
  RedisCluster();
  RedisServer& node(size_t i) { return *nodes_[i]; }
  Client& admin(size_t i) { return *admins_[i]; }
  std::string id(size_t i);
  size_t OwnerOf(uint16_t slot);  // as the nodes see it at the start
  std::vector<std::string> addresses() const;
  bool Healthy();

  // A slot's move: between the first step and the last, keys may be on either node.
  void BeginMove(uint16_t slot, size_t from, size_t to);
  void MoveKey(const std::string& key, size_t from, size_t to);
  void EndMove(uint16_t slot, size_t from, size_t to);

 private:
  std::vector<std::unique_ptr<RedisServer>> nodes_;
  std::vector<std::unique_ptr<Client>> admins_;
};

}  // namespace quire::store::redis

// Real redis-server processes of a test's own: on free ports and Unix sockets, in temporary folders, killed
// with the test.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "services/store/redis/client.h"
#include "tests/services/store/temp_folder.h"

namespace quire::store::redis {

// Writes a file into a folder; returns its path.
std::string WriteFile(const TempFolder& folder, const std::string& name, const std::string& contents);

int FreePort();  // of 127.0.0.1; free when asked

struct ServerOptions {
  std::vector<std::string> arguments;  // besides port, folder, no persistence
  bool tls = false;                    // on the port; `arguments` name the files
  bool cluster = false;
};

class RedisServer {
 public:
  // Starts one and waits until it takes connections; a test without a server fails.
  explicit RedisServer(ServerOptions options = {});
  ~RedisServer();  // SIGKILL

  void Kill();     // SIGKILL; its port stays the same
  void Restart();  // empty, unless a cluster's node, which keeps its place in the cluster
  void Stop();     // SIGSTOP: half-open
  void Continue();

  std::string address() const;  // host:port, or rediss://…
  std::string unix_address() const { return "unix:" + folder_.path() + "/redis.sock"; }
  int port() const { return port_; }
  std::string log();

 private:
  bool Start();
  void ReadLog(int fd);

  const ServerOptions options_;
  TempFolder folder_;
  int port_ = 0;
  pid_t pid_ = -1;
  std::thread reader_;
  std::mutex mu_;
  std::condition_variable changed_;
  std::string log_;
  bool ready_ = false, ended_ = false;
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

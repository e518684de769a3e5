#include "tests/services/store/redis/redis_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <functional>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/store/redis/slots.h"

namespace quire::store::redis {
namespace {

constexpr uint32_t kNodes = 3;

// Debian's redis-tools holds the server under another name; what it does follows from the name it is called
// by.
std::string ServerBinary() {
  if (const char* named = std::getenv("QUIRE_REDIS_SERVER")) return named;
  for (const char* path : {"/usr/bin/redis-server", "/usr/local/bin/redis-server", "/usr/bin/valkey-server",
                           "/usr/bin/redis-check-rdb"}) {
    if (access(path, X_OK) == 0) return path;
  }
  return "redis-server";
}

}  // namespace

std::string WriteFile(const TempFolder& folder, const std::string& name, const std::string& contents) {
  std::string path = folder.path() + "/" + name;
  std::ofstream(path, std::ios::binary) << contents;
  return path;
}

int FreePort() {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  bool bound = bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
               getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  close(fd);
  return bound ? ntohs(address.sin_port) : 0;
}

RedisServer::RedisServer(ServerOptions options) : options_(std::move(options)) {
  for (int attempt = 0; attempt < 5; ++attempt) {  // another process may have taken the port
    port_ = FreePort();
    if (Start()) return;
  }
  ADD_FAILURE() << "no redis-server starts (" << ServerBinary() << "): " << log_;
}

RedisServer::~RedisServer() { Kill(); }

bool RedisServer::Start() {
  std::string binary = ServerBinary();
  std::string port = absl::StrCat(port_);
  std::vector<std::string> arguments = {"redis-server",
                                        "--bind",
                                        "127.0.0.1",
                                        "--dir",
                                        folder_.path(),
                                        "--unixsocket",
                                        folder_.path() + "/redis.sock",
                                        "--save",
                                        "",
                                        "--daemonize",
                                        "no",
                                        options_.tls ? "--tls-port" : "--port",
                                        port};
  if (options_.tls) arguments.insert(arguments.end(), {"--port", "0"});
  if (options_.cluster) {
    arguments.insert(arguments.end(),
                     {"--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port",
                      absl::StrCat(FreePort()), "--cluster-require-full-coverage", "no"});
  }
  arguments.insert(arguments.end(), options_.arguments.begin(), options_.arguments.end());
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);

  int out[2];
  if (pipe2(out, O_CLOEXEC) != 0) return false;
  pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    dup2(out[1], STDOUT_FILENO);
    dup2(out[1], STDERR_FILENO);
    execv(binary.c_str(), argv.data());
    _exit(127);
  }
  close(out[1]);
  ready_ = ended_ = false;
  reader_ = std::thread([this, fd = out[0]] { ReadLog(fd); });
  std::unique_lock lock(mu_);
  changed_.wait_for(lock, std::chrono::seconds(20), [this] { return ready_ || ended_; });
  if (ready_) return true;
  lock.unlock();
  Kill();
  return false;
}

void RedisServer::ReadLog(int fd) {
  char buffer[4096];
  ssize_t bytes = 0;
  std::string fresh;
  while ((bytes = read(fd, buffer, sizeof buffer)) > 0) {
    std::lock_guard lock(mu_);
    fresh.append(buffer, static_cast<size_t>(bytes));
    log_.append(buffer, static_cast<size_t>(bytes));
    // The last of its lines: the Unix socket's comes after the port's.
    if (fresh.find("The server is now ready to accept connections at") != std::string::npos) ready_ = true;
    changed_.notify_all();
  }
  close(fd);
  std::lock_guard lock(mu_);
  ended_ = true;
  changed_.notify_all();
}

void RedisServer::Kill() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  if (reader_.joinable()) reader_.join();
}

void RedisServer::Restart() {
  Kill();
  if (!Start()) ADD_FAILURE() << "redis-server does not start again: " << log();
}

void RedisServer::Stop() {
  kill(pid_, SIGSTOP);
  waitpid(pid_, nullptr, WUNTRACED);
}

void RedisServer::Continue() { kill(pid_, SIGCONT); }

std::string RedisServer::address() const {
  return absl::StrCat(options_.tls ? "rediss://" : "", "127.0.0.1:", port_);
}

std::string RedisServer::log() {
  std::lock_guard lock(mu_);
  return log_;
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
    nodes_.push_back(std::make_unique<RedisServer>(ServerOptions{.arguments = {}, .cluster = true}));
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

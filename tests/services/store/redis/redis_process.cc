#include "tests/services/store/redis/redis_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quire::store::redis {
namespace {

// Debian's redis-tools holds the server under another name; what it does follows from the name it is called
// by.
std::string ServerBinary() {
  if (const char* named = std::getenv("QUIRE_REDIS_SERVER")) return named;
  for (const char* path : {"/usr/bin/redis-server", "/usr/local/bin/redis-server", "/usr/bin/valkey-server",
                           "/usr/bin/redis-check-rdb"}) {
    if (access(path, X_OK) == 0) return path;
  }
  return "";
}

}  // namespace

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

absl::StatusOr<std::unique_ptr<RedisProcess>> RedisProcess::Start(std::string folder,
                                                                  ProcessOptions options) {
  std::string binary = ServerBinary();
  if (binary.empty())
    return absl::NotFoundError("no redis-server is installed; Debian's redis-tools holds one");
  std::unique_ptr<RedisProcess> process(new RedisProcess(std::move(folder), std::move(options)));
  for (int attempt = 0; attempt < 5; ++attempt) {  // another process may have taken the port
    process->port_ = FreePort();
    if (process->Launch(binary)) return process;
  }
  return absl::UnavailableError(absl::StrCat(binary, " does not start: ", process->log_));
}

RedisProcess::~RedisProcess() { Kill(); }

std::vector<std::string> RedisProcess::Arguments() const {
  std::string port = absl::StrCat(port_);
  std::vector<std::string> arguments = {"redis-server",
                                        "--bind",
                                        "127.0.0.1",
                                        "--dir",
                                        folder_,
                                        "--unixsocket",
                                        folder_ + "/redis.sock",
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
  return arguments;
}

bool RedisProcess::Launch(const std::string& binary) {
  std::vector<std::string> arguments = Arguments();
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

void RedisProcess::ReadLog(int fd) {
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

void RedisProcess::Kill() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  if (reader_.joinable()) reader_.join();
}

absl::Status RedisProcess::Restart() {
  Kill();
  if (Launch(ServerBinary())) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("redis-server does not start again: ", log()));
}

void RedisProcess::Stop() {
  kill(pid_, SIGSTOP);
  waitpid(pid_, nullptr, WUNTRACED);
}

void RedisProcess::Continue() { kill(pid_, SIGCONT); }

std::string RedisProcess::address() const {
  return absl::StrCat(options_.tls ? "rediss://" : "", "127.0.0.1:", port_);
}

std::string RedisProcess::log() {
  std::lock_guard lock(mu_);
  return log_;
}

}  // namespace quire::store::redis

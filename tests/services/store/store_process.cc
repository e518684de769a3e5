#include "tests/services/store/store_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quire::store {

absl::StatusOr<std::unique_ptr<StoreProcess>> StoreProcess::Start(const std::string& binary,
                                                                  std::vector<std::string> arguments) {
  std::vector<char*> argv;
  std::string name = "quire-store";
  argv.push_back(name.data());
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  std::array<int, 2> out{};
  if (pipe2(out.data(), O_CLOEXEC) != 0) {
    return absl::UnavailableError(absl::StrCat("no pipe for ", binary, ": ", std::strerror(errno)));
  }
  std::unique_ptr<StoreProcess> process(new StoreProcess);
  pid_t parent = getpid();
  process->pid_ = fork();
  if (process->pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    dup2(out[1], STDOUT_FILENO);
    execv(binary.c_str(), argv.data());
    _exit(127);
  }
  close(out[1]);
  process->out_.reset(fdopen(out[0], "r"));
  if (process->pid_ < 0)
    return absl::UnavailableError(absl::StrCat(binary, " does not start: ", std::strerror(errno)));
  if (!process->ReadAddress())
    return absl::UnavailableError(absl::StrCat(binary, " ended before it was ready: ", process->AwaitEnd()));
  return process;
}

bool StoreProcess::ReadAddress() {
  constexpr std::string_view kReady = "listening on ";
  std::array<char, 512> buffer{};
  while (std::fgets(buffer.data(), buffer.size(), out_.get()) != nullptr) {
    std::string line = buffer.data();
    size_t at = line.find(kReady);
    if (at == std::string::npos) continue;
    address_ = line.substr(at + kReady.size());
    address_.pop_back();  // the newline
    return true;
  }
  return false;
}

StoreProcess::~StoreProcess() {
  if (pid_ > 0) Stop(SIGKILL);
}

void StoreProcess::Kill() const { kill(pid_, SIGKILL); }

int StoreProcess::Stop(int signal) {
  if (!ended_) kill(pid_, signal);
  return AwaitEnd();
}

bool StoreProcess::EndsWithin(std::chrono::milliseconds limit) {
  if (ended_) return true;
  pollfd end{static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)), POLLIN, 0};
  if (end.fd < 0) return false;
  const bool over = poll(&end, 1, static_cast<int>(limit.count())) == 1;
  close(end.fd);
  return over;
}

int StoreProcess::AwaitEnd() {
  int status = 0;
  if (ended_) return end_;
  if (waitpid(pid_, &status, 0) != pid_) return -1;
  ended_ = true;
  end_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  return end_;
}

uint64_t StoreProcess::rss_bytes() const {
  std::ifstream file(absl::StrCat("/proc/", pid_, "/status"));
  std::string word;
  while (file >> word) {
    uint64_t kib = 0;
    if (word == "RssAnon:" && file >> kib) return kib << 10;
  }
  return 0;
}

}  // namespace quire::store

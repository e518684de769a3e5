// This binary as a second process that talks through its standard input and output, for tests and benchmarks
// of memory that processes share.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <string>

namespace quire::store {

class OtherProcess {
 public:
  // `variable`: set in its environment, so that its main knows what it is.
  OtherProcess(const char* variable, const std::string& value) {
    int to[2], from[2];
    if (pipe(to) != 0 || pipe(from) != 0) std::abort();
    setenv(variable, value.c_str(), 1);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(to[0], 0);
      dup2(from[1], 1);
      for (int fd : {to[0], to[1], from[0], from[1]}) close(fd);
      execl("/proc/self/exe", "other-process", static_cast<char*>(nullptr));
      _exit(127);
    }
    unsetenv(variable);
    close(to[0]);
    close(from[1]);
    out_ = to[1];
    in_ = from[0];
  }
  OtherProcess(const OtherProcess&) = delete;
  OtherProcess& operator=(const OtherProcess&) = delete;
  ~OtherProcess() {
    Kill();
    close(in_);
    if (out_ >= 0) close(out_);
  }
  void Kill() {
    if (pid_ == 0) return;
    kill(pid_, SIGKILL);
    (void)Wait();
  }
  // Its exit status, once it ends.
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  // Exactly so many bytes; "": it ended before.
  std::string Read(size_t bytes) {
    std::string text(bytes, 0);
    size_t at = 0;
    while (at < bytes) {
      ssize_t n = read(in_, text.data() + at, bytes - at);
      if (n <= 0) return "";
      at += static_cast<size_t>(n);
    }
    return text;
  }
  // A line without its end; "": it ended.
  std::string Line() {
    std::string line;
    for (std::string c = Read(1); !c.empty() && c != "\n"; c = Read(1)) line += c;
    return line;
  }
  bool Say(char c) { return write(out_, &c, 1) == 1; }

 private:
  pid_t pid_ = 0;
  int in_ = -1, out_ = -1;
};

}  // namespace quire::store

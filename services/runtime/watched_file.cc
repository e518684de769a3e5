#include "services/runtime/watched_file.h"

#include <sys/stat.h>
#include <time.h>

#include <fstream>

#include "absl/strings/str_cat.h"

namespace quire::runtime {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kClockStep = 2 * kSecond;  // the coarsest of common file systems

int64_t Nanoseconds(const timespec& t) { return t.tv_sec * kSecond + t.tv_nsec; }

}  // namespace

WatchedFile::State WatchedFile::Look() const {
  struct stat status;
  if (stat(path_.c_str(), &status) != 0) return {};
  return {true,
          status.st_dev,
          status.st_ino,
          status.st_size,
          Nanoseconds(status.st_mtim),
          Nanoseconds(status.st_ctim)};
}

bool WatchedFile::Changed() const { return !settled_ || Look() != read_; }

absl::StatusOr<std::string> WatchedFile::Read(size_t limit) {
  read_ = Look();
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  settled_ = Nanoseconds(now) - read_.changed_ns > kClockStep;
  std::ifstream file(path_, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot open ", path_));
  std::string text(limit + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) return absl::NotFoundError(absl::StrCat("cannot read ", path_));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > limit) {
    return absl::ResourceExhaustedError(absl::StrCat(path_, " has more than ", limit, " bytes"));
  }
  return text;
}

}  // namespace quire::runtime

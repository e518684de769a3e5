#include "services/store/config/tenant_secret.h"

#include <fcntl.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace quire::store {
namespace {

constexpr size_t kBytes = 32;

// Under a name of its own and then linked, so that nobody reads half a secret and two starters agree on one.
absl::Status Make(const std::string& path) {
  std::array<uint8_t, kBytes> secret;
  if (RAND_bytes(secret.data(), kBytes) != 1)
    return absl::InternalError("no random bytes for the tenant secret");
  std::string fresh = absl::StrCat(path, ".", getpid());
  int fd = open(fresh.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
  if (fd < 0) return absl::UnavailableError(absl::StrCat(fresh, ": ", std::strerror(errno)));
  bool written = write(fd, secret.data(), kBytes) == static_cast<ssize_t>(kBytes) && fsync(fd) == 0;
  int error = errno;
  close(fd);
  bool linked = written && (link(fresh.c_str(), path.c_str()) == 0 || errno == EEXIST);
  if (written && !linked) error = errno;
  unlink(fresh.c_str());
  if (linked) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(path, ": ", std::strerror(error)));
}

}  // namespace

absl::StatusOr<std::string> ReadTenantSecret(const std::string& path, bool make) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    if (errno != ENOENT || !make) return absl::NotFoundError(absl::StrCat(path, ": ", std::strerror(errno)));
    QUIRE_RETURN_IF_ERROR(Make(path));
    if (stat(path.c_str(), &info) != 0)
      return absl::UnavailableError(absl::StrCat(path, ": ", std::strerror(errno)));
  }
  if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat(path, ": others may read or write it; make its mode 0600"));
  }
  std::ifstream file(path, std::ios::binary);
  std::string secret((std::istreambuf_iterator<char>(file)), {});
  if (!file || secret.size() < 16) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", secret.size(), " bytes: a secret has at least 16"));
  }
  return secret;
}

}  // namespace quire::store

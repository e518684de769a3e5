#include "gateway/auth/secret.h"

#include <fcntl.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/bytes.h"
#include "core/base/status_macros.h"

namespace quire::gateway {
namespace {

constexpr size_t kMinBytes = 16, kMaxBytes = 4096;

absl::Status SystemError(const std::string& what, const std::string& path) {
  return absl::UnavailableError(
      absl::StrCat("secret file ", path, ": cannot ", what, ": ", std::strerror(errno)));
}

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

absl::StatusOr<std::string> RandomSecret() {
  uint8_t bytes[32];
  if (RAND_bytes(bytes, sizeof bytes) != 1)
    return absl::InternalError("the system gives no random bytes for a secret");
  return HexString(bytes);
}

absl::StatusOr<std::string> ReadSecret(const std::string& path) {
  File file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.fd() < 0) {
    if (errno == ENOENT) return absl::NotFoundError(absl::StrCat("secret file ", path, " is not there"));
    return SystemError("open", path);
  }
  std::string text(kMaxBytes + 1, '\0');
  size_t size = 0;
  while (size < text.size()) {
    ssize_t n = read(file.fd(), text.data() + size, text.size() - size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SystemError("read", path);
    if (n == 0) break;
    size += static_cast<size_t>(n);
  }
  text.resize(size);
  text.resize(text.find_last_not_of(" \t\r\n") + 1);
  if (text.size() < kMinBytes || size > kMaxBytes) {
    return absl::InvalidArgumentError(absl::StrCat("secret file ", path, " holds ", text.size(),
                                                   " bytes; a secret has ", kMinBytes, " to ", kMaxBytes));
  }
  return text;
}

absl::Status WriteAll(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    ssize_t n = write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SystemError("write", path);
    text.remove_prefix(static_cast<size_t>(n));
  }
  if (fsync(fd) != 0) return SystemError("sync", path);
  return absl::OkStatus();
}

// Written aside and linked into place: whoever comes second finds a whole file, and takes it.
absl::Status CreateSecret(const std::string& path) {
  std::error_code ec;
  if (auto folder = std::filesystem::path(path).parent_path(); !folder.empty())
    std::filesystem::create_directories(folder, ec);
  QUIRE_ASSIGN_OR_RETURN(std::string secret, RandomSecret());
  std::string aside = path + ".XXXXXX";
  File file(mkostemp(aside.data(), O_CLOEXEC));  // mode 0600
  if (file.fd() < 0) return SystemError("create", path);
  absl::Status status = WriteAll(file.fd(), secret + "\n", path);
  if (status.ok() && link(aside.c_str(), path.c_str()) != 0 && errno != EEXIST)
    status = SystemError("create", path);
  unlink(aside.c_str());
  return status;
}

}  // namespace

absl::StatusOr<std::string> LoadSecret(const SecretOptions& options) {
  if (options.file.empty() && options.data_dir.empty()) return RandomSecret();
  const std::string path = options.file.empty()
                               ? (std::filesystem::path(options.data_dir) / "gateway.secret").string()
                               : options.file;
  absl::StatusOr<std::string> secret = ReadSecret(path);
  if (!absl::IsNotFound(secret.status())) return secret;
  if (options.data_dir.empty()) {
    return absl::NotFoundError(
        absl::StrCat(secret.status().message(), "; give a data folder to have it created"));
  }
  QUIRE_RETURN_IF_ERROR(CreateSecret(path));
  return ReadSecret(path);
}

Digest DeriveSalt(std::string_view secret, std::string_view tenant, std::string_view cache_salt) {
  std::vector<uint8_t> message;
  ByteWriter writer(&message);
  writer.PutBytes(AsBytes("quire.salt.v1"));
  writer.PutString(tenant);
  writer.PutString(cache_salt);
  return HmacSha256(secret, AsString(message));
}

}  // namespace quire::gateway

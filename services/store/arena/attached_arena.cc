#include "services/store/arena/attached_arena.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace quire::store {
namespace {

absl::StatusOr<UniqueFd> Connect(const std::string& path, std::chrono::milliseconds timeout) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return absl::UnavailableError("the store named no socket that can be reached");
  memcpy(address.sun_path, path.c_str(), path.size() + 1);
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  timeval limit{timeout.count() / 1000, timeout.count() % 1000 * 1000};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return absl::UnavailableError(absl::StrCat("cannot connect to the store's arena socket ", path));
  return fd;
}

UniqueFd ReceiveDescriptor(int from) {
  char byte = 0;
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (recvmsg(from, &message, MSG_CMSG_CLOEXEC) != 1) return UniqueFd();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
      header->cmsg_len != CMSG_LEN(sizeof(int)))
    return UniqueFd();
  int fd = -1;
  memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return UniqueFd(fd);
}

}  // namespace

absl::StatusOr<std::shared_ptr<AttachedArena>> AttachedArena::Claim(const std::string& socket,
                                                                    const std::string& token,
                                                                    const std::string& id, uint64_t bytes,
                                                                    std::chrono::milliseconds timeout) {
  QUIRE_ASSIGN_OR_RETURN(UniqueFd connection, Connect(socket, timeout));
  if (send(connection.get(), token.data(), token.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(token.size()))
    return absl::UnavailableError("the store's arena socket takes no token");
  UniqueFd fd = ReceiveDescriptor(connection.get());
  if (!fd.ok()) return absl::UnavailableError("the store's arena socket handed nothing over");
  QUIRE_ASSIGN_OR_RETURN(SharedSegment segment, SharedSegment::Map(std::move(fd), bytes));
  return std::shared_ptr<AttachedArena>(new AttachedArena(std::move(connection), std::move(segment), id));
}

bool AttachedArena::usable() const {
  if (retired_.load(std::memory_order_relaxed)) return false;
  char byte;
  // Nothing ever comes on it but its end.
  return recv(connection_.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
         (errno == EAGAIN || errno == EINTR);
}

std::optional<AttachedArena::Range> AttachedArena::Take(uint64_t bytes) {
  if (retired_.load(std::memory_order_relaxed)) return std::nullopt;
  std::optional<uint64_t> offset = ranges_.Take(bytes);
  if (!offset) return std::nullopt;
  return Range(shared_from_this(), *offset, bytes);
}

}  // namespace quire::store

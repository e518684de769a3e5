#include "services/store/arena/arena_host.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace quire::store {
namespace {

using std::chrono::steady_clock;

constexpr size_t kIdBytes = 16, kTokenBytes = 32;
constexpr uint64_t kPage = 4096;
constexpr size_t kMaxConnections = 1024;

std::string RandomBytes(size_t count) {
  std::string bytes(count, '\0');
  RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(count));
  return bytes;
}

std::string ParentFolder(const ArenaOptions& options) {
  if (!options.parent_folder.empty()) return options.parent_folder;
  for (const char* name : {"XDG_RUNTIME_DIR", "TMPDIR"}) {
    if (const char* folder = std::getenv(name); folder != nullptr && *folder != '\0') return folder;
  }
  return "/tmp";
}

// The same user, or root: whoever can read this process' memory anyway.
bool MayConnect(int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  return peer.uid == geteuid() || peer.uid == 0;
}

// One byte, and the descriptor beside it.
bool SendDescriptor(int to, int fd) {
  char byte = 1;
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  return sendmsg(to, &message, MSG_NOSIGNAL) == 1;
}

}  // namespace

Arena::Arena(std::optional<SharedSegment> segment, std::shared_ptr<uint8_t> device, uint64_t bytes,
             std::string owner, std::shared_ptr<Budget> budget)
    : segment_(std::move(segment)),
      device_(std::move(device)),
      bytes_(bytes),
      owner_(std::move(owner)),
      budget_(std::move(budget)),
      id_(RandomBytes(kIdBytes)),
      token_(*Digest::FromBytes(RandomBytes(kTokenBytes))) {}

Arena::~Arena() {
  if (segment_) budget_->bytes.fetch_sub(bytes_, std::memory_order_relaxed);
  budget_->arenas.fetch_sub(1, std::memory_order_relaxed);
}

absl::StatusOr<MutableBytes> Arena::Range(uint64_t offset, uint64_t length) const {
  if (closed()) return absl::FailedPreconditionError("the arena is closed: attach another");
  QUIRE_RETURN_IF_ERROR(CheckRange(offset, length, bytes_));
  MutableBytes all = segment_ ? segment_->all() : MutableBytes(device_.get(), bytes_);
  return all.subspan(offset, length);
}

bool Arena::WaitClosed(std::chrono::milliseconds timeout) const {
  std::unique_lock lock(mu_);
  return changed_.wait_for(lock, timeout, [this] { return closed(); });
}

void Arena::Close() {
  {
    std::lock_guard lock(mu_);
    closed_.store(true, std::memory_order_release);
  }
  changed_.notify_all();
}

absl::StatusOr<std::unique_ptr<ArenaHost>> ArenaHost::Start(const ArenaOptions& options) {
  auto host = std::unique_ptr<ArenaHost>(new ArenaHost(options));
  QUIRE_RETURN_IF_ERROR(host->Listen());
  host->thread_ = std::thread([h = host.get()] { h->Run(); });
  return host;
}

absl::Status ArenaHost::Listen() {
  std::string pattern = ParentFolder(options_) + "/quire-arena-XXXXXX";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (pattern.size() + 2 >= sizeof address.sun_path) {
    return absl::UnavailableError(absl::StrCat("a socket's path has at most ", sizeof address.sun_path - 1,
                                               " bytes: ", pattern, " is too long"));
  }
  if (mkdtemp(pattern.data()) == nullptr)  // mode 0700
    return absl::UnavailableError(absl::StrCat("cannot make a folder for the arenas' socket: ", pattern));
  folder_ = pattern;
  socket_ = folder_ + "/s";
  memcpy(address.sun_path, socket_.c_str(), socket_.size() + 1);
  listener_ = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  wake_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!listener_.ok() || !wake_.ok() ||
      bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      listen(listener_.get(), 64) != 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", socket_));
  }
  return absl::OkStatus();
}

ArenaHost::~ArenaHost() {
  stopping_ = true;
  Wake();
  if (thread_.joinable()) thread_.join();
  for (auto& [id, arena] : arenas_) arena->Close();
  if (!socket_.empty()) unlink(socket_.c_str());
  if (!folder_.empty()) rmdir(folder_.c_str());
}

void ArenaHost::Wake() {
  uint64_t one = 1;
  if (wake_.ok() && write(wake_.get(), &one, sizeof one) < 0)
    spdlog::error("cannot wake the arenas' thread");  // an eventfd takes 2^64 − 2 of these
}

absl::StatusOr<std::shared_ptr<Arena>> ArenaHost::Create(const std::string& owner, uint64_t bytes) {
  if (bytes == 0) return absl::InvalidArgumentError("an arena of no bytes");
  if (bytes > options_.max_client_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("an arena of ", bytes, " bytes: a client may have ", options_.max_client_bytes));
  }
  bytes = (bytes + kPage - 1) / kPage * kPage;
  // Taken first and given back on failure, so that two that come at once cannot both have the last of it.
  uint64_t held = budget_->bytes.fetch_add(bytes, std::memory_order_relaxed);
  uint32_t arenas = budget_->arenas.fetch_add(1, std::memory_order_relaxed);
  auto give_back = [&] {
    budget_->bytes.fetch_sub(bytes, std::memory_order_relaxed);
    budget_->arenas.fetch_sub(1, std::memory_order_relaxed);
  };
  if (held + bytes > options_.max_bytes || arenas >= options_.max_arenas) {
    give_back();
    return absl::ResourceExhaustedError(absl::StrCat("an arena of ", bytes, " bytes beside ", arenas,
                                                     " with ", held, ": the limits are ", options_.max_arenas,
                                                     " and ", options_.max_bytes));
  }
  absl::StatusOr<SharedSegment> segment = SharedSegment::Create(bytes);
  if (!segment.ok()) {
    give_back();
    return segment.status();
  }
  auto arena = std::shared_ptr<Arena>(new Arena(*std::move(segment), nullptr, bytes, owner, budget_));
  arena->claim_until_ = steady_clock::now() + options_.claim_timeout;
  {
    std::lock_guard lock(mu_);
    arenas_.emplace(arena->id(), arena);
  }
  Wake();  // it has a time to keep
  return arena;
}

absl::StatusOr<std::shared_ptr<Arena>> ArenaHost::Adopt(const std::string& owner,
                                                        std::shared_ptr<uint8_t> device, uint64_t bytes) {
  if (bytes == 0) return absl::InvalidArgumentError("an arena of no bytes");
  if (uint32_t arenas = budget_->arenas.fetch_add(1, std::memory_order_relaxed);
      arenas >= options_.max_arenas) {
    budget_->arenas.fetch_sub(1, std::memory_order_relaxed);
    return absl::ResourceExhaustedError(
        absl::StrCat("an arena beside ", arenas, ": the limit is ", options_.max_arenas));
  }
  auto arena = std::shared_ptr<Arena>(new Arena(std::nullopt, std::move(device), bytes, owner, budget_));
  arena->claimed_ = true;  // there is nothing to hand over
  std::lock_guard lock(mu_);
  arenas_.emplace(arena->id(), arena);
  return arena;
}

absl::StatusOr<std::shared_ptr<Arena>> ArenaHost::Find(const std::string& owner,
                                                       const std::string& id) const {
  std::lock_guard lock(mu_);
  auto it = arenas_.find(id);
  if (it == arenas_.end() || it->second->owner_ != owner || !it->second->claimed())
    return absl::FailedPreconditionError("no such arena: attach one");
  return it->second;
}

void ArenaHost::Close(const Arena& arena) {
  std::shared_ptr<Arena> held;  // its memory is given back after the lock
  std::lock_guard lock(mu_);
  auto it = arenas_.find(arena.id());
  if (it == arenas_.end()) return;
  held = std::move(it->second);
  arenas_.erase(it);
  held->Close();
  Wake();  // its connection is to be closed
}

void ArenaHost::CloseUnclaimed() {
  std::vector<std::shared_ptr<Arena>> late;
  {
    std::lock_guard lock(mu_);
    for (auto& [id, arena] : arenas_) {
      if (!arena->claimed() && steady_clock::now() > arena->claim_until_) late.push_back(arena);
    }
  }
  for (const auto& arena : late) Close(*arena);
}

int ArenaHost::SleepMs(const std::vector<Connection>& connections) const {
  auto until = steady_clock::time_point::max();
  for (const Connection& c : connections) {
    if (c.arena == nullptr) until = std::min(until, c.show_until);
  }
  {
    std::lock_guard lock(mu_);
    for (auto& [id, arena] : arenas_) {
      if (!arena->claimed()) until = std::min(until, arena->claim_until_);
    }
  }
  if (until == until.max()) return -1;
  auto left = std::chrono::ceil<std::chrono::milliseconds>(until - steady_clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left + 1, 0, 60'000));
}

void ArenaHost::Run() {
  std::vector<Connection> connections;
  std::vector<pollfd> waits;
  while (!stopping_) {
    waits = {{wake_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
    for (const Connection& c : connections) waits.push_back({c.fd.get(), POLLIN, 0});
    poll(waits.data(), waits.size(), SleepMs(connections));
    uint64_t wakes;
    if (waits[0].revents != 0 && read(wake_.get(), &wakes, sizeof wakes) < 0)
      spdlog::warn("the arenas' thread was woken by nobody");
    auto now = steady_clock::now();
    for (size_t i = 0; i < connections.size(); ++i) {
      Connection& connection = connections[i];
      bool keep = waits[i + 2].revents == 0 || Serve(connection);
      if (keep && connection.arena == nullptr && now > connection.show_until) keep = false;
      if (keep && connection.arena != nullptr && connection.arena->closed()) keep = false;
      if (keep) continue;
      if (connection.arena != nullptr) Close(*connection.arena);
      connection.fd = UniqueFd();
    }
    std::erase_if(connections, [](const Connection& c) { return !c.fd.ok(); });
    if (waits[1].revents != 0) Accept(connections);
    CloseUnclaimed();
  }
}

void ArenaHost::Accept(std::vector<Connection>& connections) {
  while (true) {
    UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd.ok()) return;
    if (connections.size() >= kMaxConnections || !MayConnect(fd.get())) continue;
    connections.push_back({std::move(fd), "", nullptr, steady_clock::now() + options_.claim_timeout});
  }
}

bool ArenaHost::Serve(Connection& connection) {
  char bytes[kTokenBytes];
  ssize_t got = recv(connection.fd.get(), bytes, sizeof bytes, 0);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  // Once the segment is handed over nothing more is to come, but the end.
  if (got == 0 || connection.arena != nullptr) return false;
  connection.shown.append(bytes, static_cast<size_t>(got));
  if (connection.shown.size() < kTokenBytes) return true;
  return connection.shown.size() == kTokenBytes && HandOver(connection);
}

bool ArenaHost::HandOver(Connection& connection) {
  {
    std::lock_guard lock(mu_);
    for (auto& [id, arena] : arenas_) {
      if (CRYPTO_memcmp(arena->token().bytes.data(), connection.shown.data(), kTokenBytes) != 0) continue;
      if (arena->claimed_.exchange(true)) return false;  // a token is good once
      connection.arena = arena;
    }
  }
  return connection.arena != nullptr && SendDescriptor(connection.fd.get(), connection.arena->segment_->fd());
}

}  // namespace quire::store

// The arenas of a store: one segment of shared memory for each client on this machine that asked for one; or
// a buffer of the client's own in the memory of a device that both use.
//
// A client asks over gRPC (AttachArena) and gets the path of a Unix socket and a token. It shows the token
// there, once, and gets the segment's descriptor; the connection stays open. When either the gRPC call or the
// connection ends, however it ends, the arena is closed: calls that name it fail from then on, and the memory
// is free when the last call that is using it returns.
//
// A device buffer is there for as long as its gRPC call, and no connection.
//
// An arena is named by 16 random bytes and belongs to the identity that asked for it: nobody can guess
// another's, and a range can only lie within the arena that was named.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "core/base/bytes.h"
#include "core/base/digest.h"
#include "services/store/arena/segment.h"

namespace quire::store {

struct ArenaOptions {
  uint64_t max_bytes = uint64_t{1} << 30;  // of all arenas together; 0: none are handed out
  uint64_t max_client_bytes = uint64_t{256} << 20;
  uint32_t max_arenas = 64;
  // Where the folder with the socket is made; "": XDG_RUNTIME_DIR, TMPDIR or /tmp.
  std::string parent_folder;
  // How long a token is good for, and a connection may take to show one.
  std::chrono::milliseconds claim_timeout{10'000};
};

// One client's memory. Thread-safe, but for the bytes themselves.
class Arena {
 public:
  ~Arena();
  const std::string& id() const { return id_; }
  const Digest& token() const { return token_; }
  uint64_t bytes() const { return bytes_; }
  // Its bytes are on a device: not for the host to follow.
  bool on_device() const { return device_ != nullptr; }

  // A range of it. INVALID_ARGUMENT where it is not within the arena, FAILED_PRECONDITION after Close.
  absl::StatusOr<MutableBytes> Range(uint64_t offset, uint64_t length) const;
  bool closed() const { return closed_.load(std::memory_order_acquire); }
  bool claimed() const { return claimed_.load(std::memory_order_acquire); }
  // Waits until it is closed, at most `timeout`; whether it is.
  bool WaitClosed(std::chrono::milliseconds timeout) const;

 private:
  friend class ArenaHost;
  struct Budget {
    std::atomic<uint64_t> bytes{0};
    std::atomic<uint32_t> arenas{0};
  };
  Arena(std::optional<SharedSegment> segment, std::shared_ptr<uint8_t> device, uint64_t bytes,
        std::string owner, std::shared_ptr<Budget> budget);
  void Close();

  const std::optional<SharedSegment> segment_;  // or
  const std::shared_ptr<uint8_t> device_;
  const uint64_t bytes_;
  const std::string owner_;
  const std::shared_ptr<Budget> budget_;
  std::string id_;
  Digest token_;
  std::chrono::steady_clock::time_point claim_until_;
  std::atomic<bool> claimed_{false}, closed_{false};
  mutable std::mutex mu_;
  mutable std::condition_variable changed_;
};

// Thread-safe. One thread for all connections, which sleeps while nothing happens.
class ArenaHost {
 public:
  // UNAVAILABLE if no socket can be made. REQUIRES: options.max_bytes > 0.
  static absl::StatusOr<std::unique_ptr<ArenaHost>> Start(const ArenaOptions& options);
  ~ArenaHost();

  const std::string& socket() const { return socket_; }
  const ArenaOptions& options() const { return options_; }
  uint64_t used_bytes() const { return budget_->bytes.load(std::memory_order_relaxed); }
  uint32_t arenas() const { return budget_->arenas.load(std::memory_order_relaxed); }

  // `bytes` is rounded up to pages. INVALID_ARGUMENT for 0; RESOURCE_EXHAUSTED over a limit.
  absl::StatusOr<std::shared_ptr<Arena>> Create(const std::string& owner, uint64_t bytes);
  // An arena of memory that its client has on a device. RESOURCE_EXHAUSTED over the limit on arenas.
  absl::StatusOr<std::shared_ptr<Arena>> Adopt(const std::string& owner, std::shared_ptr<uint8_t> device,
                                               uint64_t bytes);
  // FAILED_PRECONDITION if this owner has no such arena, or its client has not claimed it.
  absl::StatusOr<std::shared_ptr<Arena>> Find(const std::string& owner, const std::string& id) const;
  void Close(const Arena& arena);

 private:
  struct Connection {
    UniqueFd fd;
    std::string shown;             // of a token, so far
    std::shared_ptr<Arena> arena;  // once it has been shown
    std::chrono::steady_clock::time_point show_until;
  };
  explicit ArenaHost(const ArenaOptions& options) : options_(options) {}
  absl::Status Listen();
  void Run();
  void Accept(std::vector<Connection>& connections);
  // What came on a connection. False: it is to be closed.
  bool Serve(Connection& connection);
  bool HandOver(Connection& connection);
  void CloseUnclaimed();
  void Wake();
  // Milliseconds until the next arena or connection will have waited too long; −1: none does.
  int SleepMs(const std::vector<Connection>& connections) const;

  const ArenaOptions options_;
  const std::shared_ptr<Arena::Budget> budget_ = std::make_shared<Arena::Budget>();
  std::string folder_, socket_;
  UniqueFd listener_, wake_;
  mutable std::mutex mu_;                                            // guards arenas_
  absl::flat_hash_map<std::string, std::shared_ptr<Arena>> arenas_;  // by id
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace quire::store

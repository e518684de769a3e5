// One connection to one server: commands pipelined, replies in order, deadlines, keepalive, reconnects.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "core/base/bytes.h"
#include "services/store/redis/command.h"
#include "services/store/redis/options.h"
#include "services/store/redis/reply_parser.h"
#include "services/store/redis/stream.h"

namespace quire::store::redis {

using Clock = std::chrono::steady_clock;

// A status that shares no memory with another. What crosses from the I/O thread to callers is such: Abseil
// counts references partly inside its own library, which ThreadSanitizer does not see into and takes for
// races.
inline absl::Status OwnCopy(const absl::Status& status) { return {status.code(), status.message()}; }

// One command and its outcome.
struct Request {
  Command command;
  uint16_t slot = 0;    // of its key; see KeySlot
  MutableBytes into;    // not empty: where a string of exactly this size goes (Reply::Type::kPlaced)
  Reply reply;          // out, if status is OK; may be an error
  absl::Status status;  // out: OK if the server answered
};

// Requests that went to one connection together. Everything but `done` is set before Submit.
struct Group {
  struct Flight {
    Request* request = nullptr;  // lives until `done`
    bool asking = false;         // ASKING goes before it
    bool written = false, answered = false;
    int replies_to_skip = 0;
  };
  std::vector<Flight> flights;
  Clock::time_point deadline;
  // Called once, on the I/O thread, when every flight has an outcome and none of its memory is in use.
  std::function<void(Group&)> done;

  size_t open = 0;       // flights without an outcome
  bool started = false;  // bytes of it may have been sent
};

struct ConnectionCounters {
  std::atomic<uint64_t> connects{0}, failed_connects{0}, broken{0}, timeouts{0};
};

// All calls belong to the thread that runs the io_context. Kept alive by its own coroutines until Stop.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(asio::io_context& io, Endpoint endpoint, const ClientOptions& options,
             ConnectionCounters* counters);

  void Start();
  // Fails all that is under way (UNAVAILABLE) and ends; nothing may be submitted afterwards.
  void Stop();

  // Each request's outcome comes before its group's deadline: the server's answer; DEADLINE_EXCEEDED (the
  // connection is then given up if anything of the group was sent); UNAVAILABLE, UNAUTHENTICATED or
  // INVALID_ARGUMENT (TLS files) if there is no connection. While the server cannot be reached the answer
  // comes at once.
  void Submit(std::shared_ptr<Group> group);

  bool ready() const { return state_ == State::kReady; }
  bool failing() const { return !down_.ok(); }
  uint64_t load_bytes() const { return load_bytes_; }  // of commands and wanted values without an outcome

 private:
  enum class State : uint8_t { kConnecting, kReady, kBroken, kStopped };
  using Flight = Group::Flight;
  struct Queued {
    std::shared_ptr<Group> group;
    size_t index = 0;
    Flight& flight() const { return group->flights[index]; }
  };

  static asio::awaitable<void> Run(std::shared_ptr<Connection> self);
  static asio::awaitable<void> WriteLoop(std::shared_ptr<Connection> self);
  asio::awaitable<absl::Status> Open();
  asio::awaitable<absl::Status> Greet();
  asio::awaitable<absl::Status> ReadLoop();
  absl::StatusOr<bool> TakeReply();
  std::vector<asio::const_buffer> Gather(std::vector<Queued>* sending);
  void Break(const absl::Status& why);
  void FailAll(const absl::Status& why);
  void FinishIfOver(const Queued& queued);
  void Finish(const Queued& queued);
  void ArmWatch();
  void OnWatch();
  bool ExpireGroups(Clock::time_point now);
  void SubmitPing();
  absl::Status Closing() const;
  std::chrono::milliseconds NextPause();

  asio::io_context& io_;
  const Endpoint endpoint_;
  const ClientOptions& options_;
  ConnectionCounters* const counters_;

  State state_ = State::kConnecting;
  absl::Status down_;         // not OK: what to answer while there is no connection
  absl::Status break_cause_;  // why this connection ends
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<ReplyParser> parser_;
  Reply reply_;

  std::vector<std::shared_ptr<Group>> groups_;  // with flights that have no outcome
  std::deque<Queued> to_send_, in_flight_;
  std::vector<Queued> sending_;                  // being written; all of them also in in_flight_ or answered
  uint64_t load_bytes_ = 0, awaited_bytes_ = 0;  // the latter: wanted values of in_flight_
  bool writer_running_ = false;

  asio::steady_timer writer_wake_, writer_gone_, pause_timer_, watch_;
  Clock::time_point connect_deadline_, watch_at_, last_use_;
  std::chrono::milliseconds pause_;
};

}  // namespace quire::store::redis

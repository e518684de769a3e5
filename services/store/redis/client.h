// A client of one Redis or Valkey server, or of a cluster of them. Callers are plain threads that hand in a
// batch and wait; one thread of the client's own does all input and output.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/store/redis/connection.h"
#include "services/store/redis/options.h"

namespace quire::store::redis {

// Thread-safe. No call may be under way at destruction, which waits for a name lookup if one is.
class Client {
 public:
  struct Counters {
    uint64_t connects = 0, failed_connects = 0, broken = 0, timeouts = 0;
    uint64_t moved = 0, asked = 0, tried_again = 0, map_reads = 0;
  };

  // INVALID_ARGUMENT for options that cannot work: no or wrong addresses, TLS files that cannot be used, a
  // password file that cannot be read. Needs no server: connections are made, and made again, from then on.
  static absl::StatusOr<std::unique_ptr<Client>> Create(const ClientOptions& options);
  ~Client();

  // Sends all requests, pipelined, in a cluster to the nodes that hold their slots, and returns when each has
  // an outcome, soon after the deadline at the latest. Requests of one slot that go out at once are executed
  // in order, unless a redirect comes between: whatever must follow another's success belongs in a later
  // batch. Redirects are followed, TRYAGAIN is tried again until the deadline; other errors are replies.
  // Statuses as Connection::Submit's.
  void Execute(std::span<Request> requests, Clock::time_point deadline);

  Counters counters() const;

 private:
  class Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire::store::redis

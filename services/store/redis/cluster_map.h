// The servers that a client knows and which slots they hold. A single server is a map of one node.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "services/store/redis/connection.h"
#include "services/store/redis/slots.h"

namespace quire::store::redis {

// A server and the connections to it. I/O thread only, as all of this file.
class Node {
 public:
  Node(asio::io_context& io, Endpoint endpoint, const ClientOptions& options, ConnectionCounters* counters);
  ~Node();  // stops the connections
  const Endpoint& endpoint() const { return endpoint_; }
  bool idle() const;
  // To the connection with the least to do, of those that are up; see Connection::Submit.
  void Submit(std::shared_ptr<Group> group);

 private:
  const Endpoint endpoint_;
  std::vector<std::shared_ptr<Connection>> connections_;
};

class ClusterMap {
 public:
  // `options` and `counters` are borrowed.
  ClusterMap(asio::io_context& io, const ClientOptions& options, std::vector<Endpoint> seeds,
             ConnectionCounters* counters);

  void Start();
  void Stop();

  using Waiter = std::function<void(const absl::Status&)>;
  // Calls `waiter` once: now if there is a map, else when one was read, reading failed or the deadline came.
  void WhenKnown(Clock::time_point deadline, Waiter waiter);
  Node* Find(uint16_t slot) const;  // nullptr: nobody serves it, as far as is known
  Node* NodeAt(const Endpoint& endpoint);
  void Move(uint16_t slot, const Endpoint& to);  // what MOVED says; the rest of the map is read soon
  // Reads the map from a node that answers, unless that happened within the last kRefreshPause.
  void Refresh();

  uint64_t reads() const { return reads_; }

 private:
  void AskNext(size_t tries_left);
  void Install(const Endpoint& from, const std::vector<SlotRange>& ranges);
  void DropUnused();
  void Wake(uint64_t waiting, const absl::Status& status);
  void WakeAll(const absl::Status& status);

  asio::io_context& io_;
  const ClientOptions& options_;
  const std::vector<Endpoint> seeds_;
  ConnectionCounters* const counters_;
  std::map<std::string, std::unique_ptr<Node>> nodes_;  // by Endpoint::ToString
  std::vector<Node*> slots_;                            // [kSlots]; empty: not known yet
  struct Waiting {
    Waiter waiter;
    asio::steady_timer deadline;
  };
  std::map<uint64_t, std::unique_ptr<Waiting>> waiting_;
  uint64_t next_waiting_ = 0;
  std::string last_asked_;
  absl::Status last_error_;
  Clock::time_point last_refresh_{};
  bool refreshing_ = false, stopped_ = false;
  std::atomic<uint64_t> reads_{0};
};

}  // namespace quire::store::redis

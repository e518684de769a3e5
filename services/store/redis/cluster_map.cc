#include "services/store/redis/cluster_map.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"

namespace quire::store::redis {
namespace {

constexpr std::chrono::milliseconds kRefreshPause{50};

}  // namespace

Node::Node(asio::io_context& io, Endpoint endpoint, const ClientOptions& options,
           ConnectionCounters* counters)
    : endpoint_(std::move(endpoint)) {
  for (uint32_t i = 0; i < options.connections; ++i) {
    connections_.push_back(std::make_shared<Connection>(io, endpoint_, options, counters));
    connections_.back()->Start();
  }
}

Node::~Node() {
  for (const auto& connection : connections_) connection->Stop();
}

bool Node::idle() const {
  return std::all_of(connections_.begin(), connections_.end(),
                     [](const auto& connection) { return connection->load_bytes() == 0; });
}

void Node::Submit(std::shared_ptr<Group> group) {
  auto worse = [](const std::shared_ptr<Connection>& c) {
    return std::tuple(c->failing(), !c->ready(), c->load_bytes());
  };
  auto best = std::min_element(connections_.begin(), connections_.end(),
                               [&](const auto& a, const auto& b) { return worse(a) < worse(b); });
  (*best)->Submit(std::move(group));
}

ClusterMap::ClusterMap(asio::io_context& io, const ClientOptions& options, std::vector<Endpoint> seeds,
                       ConnectionCounters* counters)
    : io_(io), options_(options), seeds_(std::move(seeds)), counters_(counters) {}

void ClusterMap::Start() {
  for (const Endpoint& seed : seeds_) NodeAt(seed);
  if (options_.cluster) {
    Refresh();
  } else {
    slots_.assign(kSlots, NodeAt(seeds_[0]));
  }
}

void ClusterMap::Stop() {
  stopped_ = true;
  nodes_.clear();
}

void ClusterMap::WhenKnown(Clock::time_point deadline, Waiter waiter) {
  if (!slots_.empty()) return waiter(absl::OkStatus());
  uint64_t id = next_waiting_++;
  auto waiting = std::unique_ptr<Waiting>(new Waiting{std::move(waiter), asio::steady_timer(io_, deadline)});
  waiting->deadline.async_wait([this, id](const boost::system::error_code& error) {
    if (!error) Wake(id, absl::DeadlineExceededError("no node told the redis cluster's slots in time"));
  });
  waiting_.emplace(id, std::move(waiting));
  last_refresh_ = {};  // somebody waits: at once
  Refresh();
}

Node* ClusterMap::Find(uint16_t slot) const { return slots_[slot % kSlots]; }

Node* ClusterMap::NodeAt(const Endpoint& endpoint) {
  std::unique_ptr<Node>& node = nodes_[endpoint.ToString()];
  if (node == nullptr) node = std::make_unique<Node>(io_, endpoint, options_, counters_);
  return node.get();
}

void ClusterMap::Move(uint16_t slot, const Endpoint& to) {
  slots_[slot % kSlots] = NodeAt(to);
  Refresh();
}

void ClusterMap::Refresh() {
  if (refreshing_ || stopped_ || Clock::now() < last_refresh_ + kRefreshPause) return;
  refreshing_ = true;
  AskNext(nodes_.size());
}

// Nodes take turns, so that one that hangs does not hold up every reading.
void ClusterMap::AskNext(size_t tries_left) {
  if (tries_left == 0 || stopped_) {
    refreshing_ = false;
    last_refresh_ = Clock::now();
    return WakeAll(absl::UnavailableError(
        absl::StrCat("no node tells the redis cluster's slots: ", std::string(last_error_.message()))));
  }
  auto next = nodes_.upper_bound(last_asked_);
  if (next == nodes_.end()) next = nodes_.begin();
  last_asked_ = next->first;
  auto request = std::make_shared<Request>();
  request->command = Command({"CLUSTER", "SLOTS"});
  auto group = std::make_shared<Group>();
  group->flights.push_back({request.get()});
  group->deadline = Clock::now() + options_.timeout;
  Endpoint from = next->second->endpoint();
  group->done = [this, request, from, tries_left](Group&) {
    absl::StatusOr<std::vector<SlotRange>> ranges =
        request->status.ok() ? ParseSlots(request->reply) : request->status;
    // A node that left its cluster, or has not met it yet, knows of no slots.
    if (ranges.ok() && ranges->empty())
      ranges = absl::UnavailableError(from.ToString() + " knows of no slots");
    if (!ranges.ok()) {
      last_error_ = ranges.status();
      return AskNext(tries_left - 1);
    }
    refreshing_ = false;
    last_refresh_ = Clock::now();
    ++reads_;
    Install(from, *ranges);
    WakeAll(absl::OkStatus());
  };
  next->second->Submit(std::move(group));
}

void ClusterMap::Install(const Endpoint& from, const std::vector<SlotRange>& ranges) {
  slots_.assign(kSlots, nullptr);
  for (const SlotRange& range : ranges) {
    Endpoint endpoint = from;
    if (!range.host.empty()) endpoint.host = range.host;
    endpoint.port = range.port;
    std::fill(slots_.begin() + range.first, slots_.begin() + range.last + 1, NodeAt(endpoint));
  }
  // Not from within a connection's own callback: dropping a node ends its connections.
  asio::post(io_, [this] { DropUnused(); });
}

void ClusterMap::DropUnused() {
  std::set<const Node*> used(slots_.begin(), slots_.end());
  for (const Endpoint& seed : seeds_) used.insert(NodeAt(seed));
  std::erase_if(
      nodes_, [&](const auto& entry) { return !used.contains(entry.second.get()) && entry.second->idle(); });
}

void ClusterMap::Wake(uint64_t waiting, const absl::Status& status) {
  auto node = waiting_.extract(waiting);
  if (!node.empty()) node.mapped()->waiter(status);
}

void ClusterMap::WakeAll(const absl::Status& status) {
  auto all = std::move(waiting_);
  waiting_.clear();
  for (auto& [id, waiting] : all) waiting->waiter(status);
}

}  // namespace quire::store::redis

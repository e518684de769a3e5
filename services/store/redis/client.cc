#include "services/store/redis/client.h"

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <fstream>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/redis/cluster_map.h"

namespace quire::store::redis {
namespace {

constexpr uint8_t kMostRedirects = 8;
constexpr std::chrono::milliseconds kTryAgainPause{10};

}  // namespace

// Everything but Execute's waiting happens on the I/O thread.
class Client::Impl {
 public:
  Impl(const ClientOptions& options, std::vector<Endpoint> seeds)
      : options_(options),
        map_(io_, options_, std::move(seeds), &connection_counters_),
        work_(asio::make_work_guard(io_)),
        thread_([this] { io_.run(); }) {
    asio::post(io_, [this] { map_.Start(); });
  }

  ~Impl() {
    asio::post(io_, [this] {
      map_.Stop();
      work_.reset();
    });
    thread_.join();
  }

  void Execute(std::span<Request> requests, Clock::time_point deadline) {
    auto batch = std::make_shared<Batch>();
    batch->deadline = deadline;
    batch->open = requests.size();
    if (requests.empty()) return;
    asio::post(io_, [&] {
      std::vector<Errand> errands;
      errands.reserve(requests.size());
      for (Request& request : requests) errands.push_back({&request});
      WithMap(batch, std::move(errands));
    });
    std::unique_lock lock(batch->mutex);
    batch->over.wait(lock, [&] { return batch->done; });
  }

  Counters counters() const {
    Counters c;
    c.connects = connection_counters_.connects;
    c.failed_connects = connection_counters_.failed_connects;
    c.broken = connection_counters_.broken;
    c.timeouts = connection_counters_.timeouts;
    c.moved = moved_;
    c.asked = asked_;
    c.tried_again = tried_again_;
    c.map_reads = map_.reads();
    return c;
  }

 private:
  struct Batch {
    Clock::time_point deadline;
    size_t open = 0;  // requests without an outcome
    std::mutex mutex;
    std::condition_variable over;
    bool done = false;
  };
  // A request on its way, perhaps redirected.
  struct Errand {
    Request* request = nullptr;
    Node* to = nullptr;  // not the one that the map says
    bool asking = false;
    uint8_t redirects = 0;
  };

  void WithMap(const std::shared_ptr<Batch>& batch, std::vector<Errand> errands) {
    map_.WhenKnown(batch->deadline,
                   [this, batch, errands = std::move(errands)](const absl::Status& status) mutable {
                     if (status.ok()) return Dispatch(batch, errands);
                     for (Errand& errand : errands) errand.request->status = OwnCopy(status);
                     Settle(batch, errands.size());
                   });
  }

  void Dispatch(const std::shared_ptr<Batch>& batch, const std::vector<Errand>& errands) {
    std::map<Node*, std::vector<Errand>> by_node;
    size_t homeless = 0;
    for (const Errand& errand : errands) {
      Node* node = errand.to != nullptr ? errand.to : map_.Find(errand.request->slot);
      if (node != nullptr) {
        by_node[node].push_back(errand);
        continue;
      }
      errand.request->status = absl::UnavailableError(
          absl::StrCat("no node of the redis cluster serves slot ", errand.request->slot));
      ++homeless;
    }
    if (homeless > 0) map_.Refresh();
    for (auto& [node, of_node] : by_node) Send(batch, *node, std::move(of_node));
    Settle(batch, homeless);
  }

  void Send(const std::shared_ptr<Batch>& batch, Node& node, std::vector<Errand> errands) {
    auto group = std::make_shared<Group>();
    group->deadline = batch->deadline;
    for (const Errand& errand : errands) {
      errand.request->status = absl::OkStatus();
      group->flights.push_back({errand.request, errand.asking});
    }
    Endpoint from = node.endpoint();
    group->done = [this, batch, from, errands = std::move(errands)](Group&) mutable {
      Judge(batch, from, errands);
    };
    node.Submit(std::move(group));
  }

  // What a node answered: outcomes, and what must go elsewhere or once more.
  void Judge(const std::shared_ptr<Batch>& batch, const Endpoint& from, std::vector<Errand>& errands) {
    std::vector<Errand> again, later;
    size_t over = 0;
    for (Errand& errand : errands) {
      if (options_.cluster && Redirected(from, errand)) {
        again.push_back(errand);
      } else if (options_.cluster && TriesAgain(*errand.request, batch->deadline)) {
        later.push_back(errand);
      } else {
        if (options_.cluster && SaysMapIsOld(*errand.request)) map_.Refresh();
        ++over;
      }
    }
    if (!again.empty()) Dispatch(batch, again);
    if (!later.empty()) DispatchLater(batch, std::move(later));
    Settle(batch, over);
  }

  // True if the request goes to another node now.
  bool Redirected(const Endpoint& from, Errand& errand) {
    Request& request = *errand.request;
    if (!request.status.ok() || !request.reply.is(Reply::Type::kError)) return false;
    absl::StatusOr<Redirect> redirect = ParseRedirect(request.reply.text);
    if (!redirect.ok()) {
      if (absl::IsDataLoss(redirect.status()))
        request.status = absl::UnavailableError(redirect.status().message());
      return false;
    }
    if (errand.redirects >= kMostRedirects) return false;
    ++errand.redirects;
    Endpoint target = from;
    if (!redirect->host.empty()) target.host = redirect->host;
    target.port = redirect->port;
    errand.asking = redirect->ask;
    errand.to = redirect->ask ? map_.NodeAt(target) : nullptr;
    if (redirect->ask) {
      ++asked_;
    } else {
      ++moved_;
      map_.Move(redirect->slot, target);
    }
    request.reply = Reply();
    return true;
  }

  bool TriesAgain(const Request& request, Clock::time_point deadline) {
    if (!request.status.ok() || !request.reply.is(Reply::Type::kError)) return false;
    if (!request.reply.text.starts_with("TRYAGAIN")) return false;
    if (Clock::now() + kTryAgainPause >= deadline) return false;
    ++tried_again_;
    return true;
  }

  static bool SaysMapIsOld(const Request& request) {
    if (!request.status.ok())
      return absl::IsUnavailable(request.status) || absl::IsDeadlineExceeded(request.status);
    if (!request.reply.is(Reply::Type::kError)) return false;
    return request.reply.text.starts_with("CLUSTERDOWN") || request.reply.text.starts_with("READONLY");
  }

  // By the map, from the slot's owner on.
  void DispatchLater(const std::shared_ptr<Batch>& batch, std::vector<Errand> errands) {
    for (Errand& errand : errands) {
      errand.to = nullptr;
      errand.asking = false;
      errand.redirects = 0;
    }
    auto timer = std::make_shared<asio::steady_timer>(io_, kTryAgainPause);
    timer->async_wait([this, timer, batch, errands = std::move(errands)](const boost::system::error_code&) {
      Dispatch(batch, errands);
    });
  }

  static void Settle(const std::shared_ptr<Batch>& batch, size_t over) {
    batch->open -= over;
    if (over == 0 || batch->open > 0) return;
    std::lock_guard lock(batch->mutex);
    batch->done = true;
    batch->over.notify_one();
  }

  const ClientOptions options_;
  ConnectionCounters connection_counters_;
  std::atomic<uint64_t> moved_{0}, asked_{0}, tried_again_{0};
  asio::io_context io_{1};
  ClusterMap map_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::thread thread_;
};

absl::StatusOr<std::unique_ptr<Client>> Client::Create(const ClientOptions& options) {
  if (options.addresses.empty()) return absl::InvalidArgumentError("no redis address is given");
  std::vector<Endpoint> seeds;
  for (const std::string& address : options.addresses) {
    QUIRE_ASSIGN_OR_RETURN(Endpoint endpoint, Endpoint::Parse(address));
    if (options.cluster && !endpoint.path.empty())
      return absl::InvalidArgumentError(
          absl::StrCat("redis address '", address, "': a cluster's nodes have ports"));
    if (!seeds.empty() && endpoint.tls != seeds[0].tls)
      return absl::InvalidArgumentError("either all redis addresses have TLS (rediss://) or none");
    seeds.push_back(std::move(endpoint));
  }
  if (!options.cluster && seeds.size() > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(seeds.size(), " redis addresses are given; only a cluster has more than one"));
  }
  if (options.cluster && options.database != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a redis cluster has only database 0; ", options.database, " is asked for"));
  }
  if (options.connections < 1 || options.timeout.count() < 1 || options.keepalive.count() < 1)
    return absl::InvalidArgumentError("redis connections, timeout and keepalive must be at least 1");
  if (!options.user.empty() && options.password_file.empty())
    return absl::InvalidArgumentError("a redis user needs a password file");
  if (!options.password_file.empty() && !std::ifstream(options.password_file).good()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the redis password file ", options.password_file, " cannot be read"));
  }
  bool tls_files = !options.tls_ca.empty() || !options.tls_certificate.empty() || !options.tls_key.empty();
  if (!seeds[0].tls && tls_files)
    return absl::InvalidArgumentError(
        "redis TLS files are given, but the address does not begin with rediss://");
  if (seeds[0].tls) QUIRE_RETURN_IF_ERROR(NewTlsContext(options).status());
  return std::unique_ptr<Client>(new Client(std::make_unique<Impl>(options, std::move(seeds))));
}

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

void Client::Execute(std::span<Request> requests, Clock::time_point deadline) {
  impl_->Execute(requests, deadline);
}

Client::Counters Client::counters() const { return impl_->counters(); }

}  // namespace quire::store::redis

#include "tests/bench/soak_client.h"

#include <algorithm>
#include <chrono>
#include <span>
#include <utility>

#include "services/runtime/server.h"
#include "services/store/client/event_stream.h"

namespace quire::bench {
namespace {

using std::chrono::steady_clock;
constexpr std::chrono::milliseconds kCallTimeout{5'000}, kStreamTimeout{10'000};
constexpr std::chrono::seconds kAway{20};  // how long a store may be away before its clients ask again

void AwaitConnected(grpc::Channel& channel) {
  channel.WaitForConnected(std::chrono::system_clock::now() + kAway);
}

}  // namespace

const char* Name(SoakCall call) {
  constexpr std::array<const char*, kSoakCalls> kNames = {"lookup", "get",   "put",      "delete", "pin",
                                                          "unpin",  "touch", "prefetch", "stats"};
  return kNames[static_cast<size_t>(call)];
}

void SoakTally::Ended(SoakCall call, const absl::Status& status, double seconds) {
  std::lock_guard lock(mu_);
  seconds_[static_cast<size_t>(call)].push_back(static_cast<float>(seconds));
  ++statuses_[status.code()];
  ended_.fetch_add(1, std::memory_order_relaxed);
  changed_.notify_all();
}

void SoakTally::WatchBroke(const absl::Status& why) {
  std::lock_guard lock(mu_);
  ++statuses_[why.code()];
}

void SoakTally::Blocks(uint64_t right, uint64_t missed, uint64_t wrong) {
  right_.fetch_add(right, std::memory_order_relaxed);
  missed_.fetch_add(missed, std::memory_order_relaxed);
  wrong_.fetch_add(wrong, std::memory_order_relaxed);
}

void SoakTally::Await(uint64_t ended, steady_clock::time_point until) {
  std::unique_lock lock(mu_);
  changed_.wait_until(lock, until, [&] { return this->ended() >= ended || over(); });
}

double SoakTally::Percentile(SoakCall call, double share) const {
  std::lock_guard lock(mu_);
  std::vector<float> seconds = seconds_[static_cast<size_t>(call)];
  if (seconds.empty()) return 0;
  auto at = static_cast<size_t>(share * static_cast<double>(seconds.size() - 1));
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<ptrdiff_t>(at), seconds.end());
  return seconds[at];
}

uint64_t SoakTally::Count(SoakCall call) const {
  std::lock_guard lock(mu_);
  return seconds_[static_cast<size_t>(call)].size();
}

std::map<absl::StatusCode, uint64_t> SoakTally::statuses() const {
  std::lock_guard lock(mu_);
  return statuses_;
}

SoakClient::SoakClient(const SoakBlocks& blocks, SoakTally& tally, const std::string& address,
                       uint64_t arena_bytes, uint32_t seed)
    : blocks_(blocks),
      tally_(tally),
      channel_(*runtime::NewChannel(address)),
      fingerprint_(blocks.layout.Fingerprint()),
      random_(seed) {
  store::RemoteStoreOptions options;
  options.call_timeout = kCallTimeout;
  options.stream_timeout = kStreamTimeout;
  options.max_tries = 1;  // every answer is counted
  options.arena_bytes = arena_bytes;
  store_ = std::make_unique<store::RemoteStore>(channel_, options);
}

absl::Status SoakClient::Call(SoakCall call, const std::function<absl::Status()>& make) {
  tally_.Begun();
  auto start = steady_clock::now();
  absl::Status status = make();
  std::chrono::duration<double> took = steady_clock::now() - start;
  tally_.Ended(call, status, took.count());
  return status;
}

void SoakClient::Run() {
  while (!tally_.over() && !store_->RegisterLayout(blocks_.layout).ok()) AwaitConnected(*channel_);
  // Some conversations are asked about far more often than others.
  std::geometric_distribution<size_t> recent(8.0 / static_cast<double>(blocks_.chains.size()));
  while (!tally_.over()) {
    const SoakChain& chain = blocks_.chains[recent(random_) % blocks_.chains.size()];
    bool there = Prompt(chain);
    if (there && random_() % 3 == 0) there = Others(chain);
    if (!there) AwaitConnected(*channel_);
  }
}

bool SoakClient::Prompt(const SoakChain& chain) {
  store::LookupOptions options;
  if (random_() % 2 == 0) options.lease = std::chrono::milliseconds(random_() % 500);
  size_t prefix = 0;
  absl::Status status = Call(SoakCall::kLookup, [&]() -> absl::Status {
    auto found = store_->Lookup({chain.tenant, fingerprint_}, chain.keys, options);
    if (found.ok()) prefix = found->prefix_blocks;
    return found.status();
  });
  if (absl::IsUnavailable(status)) return false;
  if (prefix > 0 && !Get(chain, prefix)) return false;
  return prefix == chain.keys.size() || Put(chain, prefix);
}

bool SoakClient::Get(const SoakChain& chain, size_t blocks) {
  uint64_t right = 0, missed = 0, wrong = 0;
  store::GetSink sink;
  sink.on_block = [&](uint32_t i, Bytes object) {
    ++(chain.IsRight(i, object) ? right : wrong);
    return absl::OkStatus();
  };
  sink.on_miss = [&](uint32_t, const absl::Status&) {
    ++missed;
    return absl::OkStatus();
  };
  store::GetOptions options;
  if (random_() % 4 == 0) options.max_bits = 2 + static_cast<uint32_t>(random_() % 3);
  absl::Status status = Call(SoakCall::kGet, [&] {
    return store_->Get({chain.tenant, fingerprint_}, std::span(chain.identities).first(blocks), options,
                       sink);
  });
  tally_.Blocks(right, missed, wrong);
  return !absl::IsUnavailable(status);
}

bool SoakClient::Put(const SoakChain& chain, size_t from) {
  store::PutOptions options;
  options.encode = chain.encode;
  options.priority = static_cast<int32_t>(random_() % 3);
  if (random_() % 8 == 0) options.ttl = std::chrono::milliseconds(200 + random_() % 2000);
  std::vector<store::PutBlock> blocks = chain.ToPut(from);
  absl::Status status = Call(SoakCall::kPut, [&] {
    std::vector<store::PutOutcome> outcomes;
    absl::Status sent = store_->PutBlocks({chain.tenant, fingerprint_}, blocks, options, &outcomes);
    // A stream that went well may bring blocks that found no room.
    for (const store::PutOutcome& outcome : outcomes) {
      if (sent.ok() && outcome.wanted) sent = outcome.status;
    }
    return sent;
  });
  return !absl::IsUnavailable(status);
}

bool SoakClient::Others(const SoakChain& chain) {
  store::Namespace ns{chain.tenant, fingerprint_};
  auto about = [&](SoakCall call, auto make) { return Call(call, [&] { return make().status(); }); };
  absl::Status status;
  switch (random_() % 16) {
    case 0:
      status = about(SoakCall::kDelete, [&] { return store_->Delete(ns, chain.keys, random_() % 2 == 0); });
      break;
    case 1:
    case 2:
      status = about(SoakCall::kPin, [&] { return store_->Pin(ns, chain.keys); });
      if (status.ok() && !Get(chain, chain.keys.size())) return false;
      // Pins outlive their client: it must not leave without.
      do {
        status = about(SoakCall::kUnpin, [&] { return store_->Unpin(ns, chain.keys); });
      } while (absl::IsDeadlineExceeded(status));
      break;
    case 3:
    case 4:
      status =
          about(SoakCall::kPrefetch, [&] { return store_->Prefetch(ns, chain.keys, store::Tier::kNone); });
      break;
    case 5:
      status = about(SoakCall::kStats, [&] { return store_->Stats(); });
      break;
    default:
      status = about(SoakCall::kTouch, [&] { return store_->Touch(ns, chain.keys); });
  }
  return !absl::IsUnavailable(status);
}

SoakWatcher::SoakWatcher(SoakTally& tally, const std::string& address, std::string tenant)
    : tally_(tally), channel_(*runtime::NewChannel(address)), tenant_(std::move(tenant)) {}

void SoakWatcher::Run() {
  while (!tally_.over()) {
    store::WatchOptions options;
    options.tenant = tenant_;
    auto stream = store::EventStream::Open(channel_, options);
    if (!stream.ok()) {
      tally_.WatchBroke(stream.status());
      AwaitConnected(*channel_);
      continue;
    }
    {
      std::lock_guard lock(mu_);
      if (ended_) return;
      cancel_ = [events = stream->get()] { events->Cancel(); };
    }
    uint64_t expected = 0;
    absl::Status broke;
    while (broke.ok()) {
      auto event = (*stream)->Next();
      if (!event.ok()) {
        broke = event.status();
      } else if (expected != 0 && event->sequence != expected) {
        broke = absl::InternalError("events came out of order");
      } else {
        expected = event->sequence + 1;
        tally_.Event();
      }
    }
    tally_.WatchBroke(broke);
    std::lock_guard lock(mu_);
    cancel_ = nullptr;
  }
}

void SoakWatcher::Cancel() {
  std::lock_guard lock(mu_);
  ended_ = true;
  if (cancel_) cancel_();
}

}  // namespace quire::bench

#include "tests/fuzz/served.h"

#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <string>

#include "quire/v1/codec.grpc.pb.h"
#include "quire/v1/kv_store.grpc.pb.h"
#include "quire/v1/store_admin.grpc.pb.h"

namespace quire::fuzz {
namespace {

// The services of the input that runs, and how many of their calls do.
class Current {
 public:
  // Waits until no call of the services before runs any more.
  void Set(const store::StoreServices* services) {
    std::unique_lock lock(mu_);
    idle_.wait(lock, [this] { return running_ == 0; });
    services_ = services == nullptr ? std::vector<grpc::Service*>() : services->services();
  }
  template <typename Service, typename... Parameters, typename... Arguments>
  grpc::Status Call(size_t which, grpc::Status (Service::*method)(Parameters...), Arguments*... arguments) {
    {
      std::lock_guard lock(mu_);
      QUIRE_FUZZ_CHECK(!services_.empty());  // an input's calls have all begun before it ends
      ++running_;
    }
    grpc::Status status = (static_cast<Service*>(services_[which])->*method)(arguments...);
    std::lock_guard lock(mu_);
    if (--running_ == 0) idle_.notify_all();
    return status;
  }

 private:
  std::mutex mu_;  // guards all below; services_ stands still while calls run
  std::condition_variable idle_;
  int running_ = 0;
  std::vector<grpc::Service*> services_;
};

template <typename Out>
using Writer = grpc::ServerWriter<Out>;
template <typename In, typename Out>
using Stream = grpc::ServerReaderWriter<Out, In>;

#define QUIRE_FUZZ_UNARY(Call_, Request_, Response_)                                                     \
  grpc::Status Call_(grpc::ServerContext* context, const v1::Request_* request, v1::Response_* response) \
      override {                                                                                         \
    return current_.Call(kWhich, &Service::Call_, context, request, response);                           \
  }
#define QUIRE_FUZZ_READS(Call_, Request_, Response_)                            \
  grpc::Status Call_(grpc::ServerContext* context, const v1::Request_* request, \
                     Writer<v1::Response_>* writer) override {                  \
    return current_.Call(kWhich, &Service::Call_, context, request, writer);    \
  }
#define QUIRE_FUZZ_BOTH(Call_, Request_, Response_)                                                   \
  grpc::Status Call_(grpc::ServerContext* context, Stream<v1::Request_, v1::Response_>* s) override { \
    return current_.Call(kWhich, &Service::Call_, context, s);                                        \
  }

class Kv final : public v1::KvStore::Service {
 public:
  explicit Kv(Current& current) : current_(current) {}
  QUIRE_FUZZ_UNARY(RegisterLayout, RegisterLayoutRequest, RegisterLayoutResponse)
  QUIRE_FUZZ_UNARY(Lookup, LookupRequest, LookupResponse)
  QUIRE_FUZZ_BOTH(Put, PutRequest, PutResponse)
  QUIRE_FUZZ_READS(Get, GetRequest, GetResponse)
  QUIRE_FUZZ_UNARY(Delete, DeleteRequest, DeleteResponse)
  QUIRE_FUZZ_UNARY(Pin, PinRequest, PinResponse)
  QUIRE_FUZZ_UNARY(Unpin, UnpinRequest, UnpinResponse)
  QUIRE_FUZZ_UNARY(Touch, TouchRequest, TouchResponse)
  QUIRE_FUZZ_UNARY(Prefetch, PrefetchRequest, PrefetchResponse)
  QUIRE_FUZZ_READS(Watch, WatchRequest, WatchResponse)
  QUIRE_FUZZ_READS(AttachArena, AttachArenaRequest, AttachArenaResponse)

 private:
  static constexpr size_t kWhich = 0;  // as StoreServices::services() gives them
  Current& current_;
};

class Codec final : public v1::Codec::Service {
 public:
  explicit Codec(Current& current) : current_(current) {}
  QUIRE_FUZZ_BOTH(Encode, EncodeRequest, CodecData)
  QUIRE_FUZZ_BOTH(Decode, DecodeRequest, CodecData)
  QUIRE_FUZZ_UNARY(Describe, DescribeRequest, DescribeResponse)

 private:
  static constexpr size_t kWhich = 1;
  Current& current_;
};

class Admin final : public v1::StoreAdmin::Service {
 public:
  explicit Admin(Current& current) : current_(current) {}
  QUIRE_FUZZ_UNARY(Stats, StatsRequest, StatsResponse)
  QUIRE_FUZZ_UNARY(GetQuota, GetQuotaRequest, Quota)
  QUIRE_FUZZ_UNARY(SetQuota, Quota, Quota)
  QUIRE_FUZZ_UNARY(Drain, DrainRequest, DrainResponse)
  QUIRE_FUZZ_UNARY(DeleteTenant, DeleteTenantRequest, DeleteTenantResponse)
  QUIRE_FUZZ_READS(Verify, VerifyRequest, VerifyResponse)
  QUIRE_FUZZ_UNARY(InjectFault, InjectFaultRequest, InjectFaultResponse)

 private:
  static constexpr size_t kWhich = 2;
  Current& current_;
};

struct Server {
  Server() {
    grpc::ServerBuilder builder;
    builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
    builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
    for (grpc::Service* service : std::initializer_list<grpc::Service*>{&kv, &codec, &admin})
      builder.RegisterService(service);
    server = builder.BuildAndStart();
    channel = server->InProcessChannel({});
  }
  ~Server() {  // its threads' end, or what they hold would count as leaks
    channel.reset();
    server->Shutdown();
    server->Wait();
  }
  Current current;
  Kv kv{current};
  Codec codec{current};
  Admin admin{current};
  std::unique_ptr<grpc::Server> server;
  std::shared_ptr<grpc::Channel> channel;
};
Server& TheServer() {
  static Server server;
  return server;
}

store::LocalStoreOptions StoreOptions() {
  store::LocalStoreOptions options;
  options.host_bytes = 1 << 20;
  options.max_staged_raw_bytes = 1 << 20;
  options.max_put_sessions = 4;
  options.enable_faults = true;
  return options;
}

}  // namespace

Served::Served()
    : now_ms_(std::make_shared<std::atomic<int64_t>>(1'000'000)), registry_(runtime::NewRegistry()) {
  store::LocalStoreOptions options = StoreOptions();
  options.registry = registry_;
  options.now_ms = options.now_unix_ms = [now = now_ms_] { return now->load(); };
  store_ = *store::LocalStore::Create(options);
  store::StoreServicesOptions limits;
  limits.max_codec_block_bytes = 1 << 20;
  limits.arena.max_bytes = limits.arena.max_client_bytes = 1 << 20;
  services_ = std::make_unique<store::StoreServices>(store_, *registry_, limits);
  TheServer().current.Set(services_.get());
  channel_ = TheServer().channel;
}

Served::~Served() {
  // Whatever came, the store answers and has got back what sessions held.
  TheServer().current.Set(nullptr);
  const Held last = held();
  QUIRE_FUZZ_CHECK(last.put_sessions == 0);
  // What is counted agrees with what is taken of the memory.
  QUIRE_FUZZ_CHECK((last.blocks == 0) == (last.used_bytes == 0));
  QUIRE_FUZZ_CHECK((last.raw_bytes == 0) == (last.used_bytes == 0));
}

Held Served::held() {
  absl::StatusOr<store::StoreStats> stats = store_->Stats();
  QUIRE_FUZZ_CHECK(stats.ok());
  Held held;
  for (const store::TierStats& tier : stats->tiers) {
    held.used_bytes += tier.used_bytes;
    held.blocks += tier.blocks;
    held.raw_bytes += tier.raw_bytes;
  }
  held.stored = stats->blocks_stored;
  held.deleted = stats->blocks_deleted;
  held.evicted = stats->blocks_evicted;
  held.levels_dropped = stats->levels_dropped;
  held.corrupt = stats->checksum_failures;
  held.layouts = stats->layouts;
  held.put_sessions = stats->put_sessions;
  return held;
}

std::vector<Entry> Entries(Input input, int calls) {
  constexpr size_t kMost = 64;
  std::vector<Entry> entries;
  while (!input.empty() && entries.size() < kMost) {
    int call = input.Byte() % calls;
    entries.push_back({call, input.Take(input.Short())});
  }
  return entries;
}

void CheckStatus(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::UNKNOWN:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      std::fprintf(stderr, "%d: %s\n", status.error_code(), status.error_message().c_str());
      std::abort();
    default:
      break;
  }
}

}  // namespace quire::fuzz

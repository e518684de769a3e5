#include "tests/bench/grpc_bench.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/block/keys.h"
#include "quire/v1/kv_store.grpc.pb.h"
#include "services/runtime/metrics.h"
#include "services/runtime/server.h"
#include "services/runtime/status.h"
#include "services/store/api/limits.h"
#include "services/store/client/remote_store.h"
#include "services/store/engine/local_store.h"
#include "services/store/server/store_services.h"
#include "tests/bench/store_chain.h"
#include "tests/bench/turns.h"

namespace quire::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kRounds = 15;              // of each kind of transfer, by turns
constexpr uint32_t kLookupBlocks = 512;  // of a prompt
constexpr int kLookupsInAll = 8'000;     // of all clients of one measurement

// The streams of Put and Get with nothing behind them: one buffer is sent over and over, and what comes is
// dropped. Chunks and answers are of the number and size that the chain's have.
class ConstantStore final : public v1::KvStore::Service {
 public:
  explicit ConstantStore(const Chain& chain) : chain_(chain) {}

  grpc::Status Get(grpc::ServerContext*, const v1::GetRequest*,
                   grpc::ServerWriter<v1::GetResponse>* writer) override {
    v1::GetResponse chunk;
    for (const auto& object : chain_.objects) {
      for (uint64_t left = object.size(); left > 0; left -= chunk.data().data().size()) {
        SetChunk(*chunk.mutable_data(), left);
        writer->Write(chunk);
      }
    }
    return grpc::Status::OK;
  }
  grpc::Status Put(grpc::ServerContext*,
                   grpc::ServerReaderWriter<v1::PutResponse, v1::PutRequest>* stream) override {
    v1::PutRequest request;
    v1::PutResponse response;
    response.mutable_result()->set_stored_bytes(1);
    while (stream->Read(&request)) {
      if (request.data().data().size() < store::kChunkBytes) stream->Write(response);
    }
    return grpc::Status::OK;
  }

  grpc::Status RegisterLayout(grpc::ServerContext*, const v1::RegisterLayoutRequest*,
                              v1::RegisterLayoutResponse*) override {
    return grpc::Status::OK;
  }
  grpc::Status Lookup(grpc::ServerContext*, const v1::LookupRequest*, v1::LookupResponse*) override {
    return grpc::Status::OK;
  }

  // The next chunk of so many bytes. The buffer keeps its room.
  static void SetChunk(v1::BlockData& data, uint64_t left) {
    data.mutable_data()->resize(std::min(left, store::kChunkBytes), 'x');
    data.set_object_bytes(left);
  }

 private:
  const Chain& chain_;
};

absl::Status ConstantGet(v1::KvStore::Stub& stub) {
  grpc::ClientContext context;
  auto stream = stub.Get(&context, v1::GetRequest());
  for (v1::GetResponse response; stream->Read(&response);) {
  }
  return runtime::FromGrpc(stream->Finish());
}

absl::Status ConstantPut(v1::KvStore::Stub& stub, const Chain& chain) {
  grpc::ClientContext context;
  auto stream = stub.Put(&context);
  std::jthread reader([&] {
    for (v1::PutResponse response; stream->Read(&response);) {
    }
  });
  v1::PutRequest chunk;
  for (const auto& object : chain.objects) {
    for (uint64_t left = object.size(); left > 0; left -= chunk.data().data().size()) {
      ConstantStore::SetChunk(*chunk.mutable_data(), left);
      stream->Write(chunk);
    }
  }
  stream->WritesDone();
  reader.join();
  return runtime::FromGrpc(stream->Finish());
}

absl::Status MeasureTransfers(Report& report, store::RemoteStore& remote, const store::Namespace& ns,
                              const Chain& chain, v1::KvStore::Stub& constant) {
  const std::vector<Digest> keys = chain.keys();
  const std::vector<store::PutBlock> blocks = chain.blocks();
  QUIRE_RETURN_IF_ERROR(PutBlocks(remote, ns, blocks));
  // Every Put must store: it begins with a Delete, whose time is small beside the bytes moved, and leaves the
  // blocks for the next Get.
  auto put = [&] {
    QUIRE_RETURN_IF_ERROR(remote.Delete(ns, keys, true).status());
    return PutBlocks(remote, ns, blocks);
  };
  std::vector<Work> works = {{"constant get", [&] { return ConstantGet(constant); }, {}},
                             {"get", [&] { return GetAll(remote, ns, chain); }, {}},
                             {"constant put", [&] { return ConstantPut(constant, chain); }, {}},
                             {"put", put, {}}};
  QUIRE_RETURN_IF_ERROR(TakeTurns(works, kRounds));
  const double gigabytes = chain.bytes * 1e-9;
  const std::string context = absl::StrCat(kChainBlocks, " blocks of ", chain.objects.back().size(),
                                           " bytes (8 MiB raw), verified by store and client");
  report.Add({"get/grpc", gigabytes / works[1].median(), "GB/s", "the same stream of a constant buffer",
              gigabytes / works[0].median(), 0.9, context});
  report.Add({"put/grpc", gigabytes / works[3].median(), "GB/s", "the same stream of a constant buffer",
              gigabytes / works[2].median(), 0.85, context});
  return absl::OkStatus();
}

// How long each call took, over all clients, and how many calls a second they made together.
struct Waits {
  std::vector<double> us;
  double per_second = 0;
  double At(double share) {
    auto at = us.begin() + static_cast<ptrdiff_t>(share * static_cast<double>(us.size() - 1));
    std::nth_element(us.begin(), at, us.end());
    return *at;
  }
};

absl::StatusOr<Waits> LookUp(const std::string& address, int clients, const store::Namespace& ns,
                             const std::vector<Digest>& prompt) {
  std::vector<std::unique_ptr<store::RemoteStore>> stores;
  for (int c = 0; c < clients; ++c) {
    QUIRE_ASSIGN_OR_RETURN(auto channel, runtime::NewChannel(address));
    stores.push_back(std::make_unique<store::RemoteStore>(std::move(channel)));
    QUIRE_RETURN_IF_ERROR(stores.back()->Lookup(ns, prompt, {}).status());  // the connection is made
  }
  const int each = kLookupsInAll / clients;
  std::vector<std::vector<double>> us(stores.size());
  std::vector<absl::Status> statuses(stores.size());
  auto start = Clock::now();
  {
    std::vector<std::jthread> threads;
    for (size_t c = 0; c < stores.size(); ++c) {
      threads.emplace_back([&, c] {
        for (int i = 0; i < each; ++i) {
          auto began = Clock::now();
          statuses[c].Update(stores[c]->Lookup(ns, prompt, {}).status());
          us[c].push_back(std::chrono::duration<double, std::micro>(Clock::now() - began).count());
        }
      });
    }
  }
  Waits waits;
  waits.per_second = each * clients / std::chrono::duration<double>(Clock::now() - start).count();
  for (size_t c = 0; c < stores.size(); ++c) {
    QUIRE_RETURN_IF_ERROR(statuses[c]);
    waits.us.insert(waits.us.end(), us[c].begin(), us[c].end());
  }
  return waits;
}

// A prompt all of whose blocks are stored; small ones, for their size is no matter here.
absl::StatusOr<std::vector<Digest>> StorePrompt(store::RemoteStore& remote, store::Namespace* ns) {
  Layout layout = Layout::Uniform(Sha256().Update("lookup-bench").Finish(), 1, 1, 64);
  QUIRE_ASSIGN_OR_RETURN(ns->fingerprint, remote.RegisterLayout(layout));
  QUIRE_ASSIGN_OR_RETURN(auto codec, BlockCodec::Create(layout, Part::Whole(layout)));
  const std::vector<float> values(size_t{kBlockTokens} * 64, 1.f);
  const StreamView stream{values.data(), DType::kF32, 64, 64};
  const std::vector<LayerView> layers(1, LayerView{stream, stream});
  std::vector<std::vector<uint8_t>> objects(kLookupBlocks);
  std::vector<store::PutBlock> blocks;
  std::vector<Digest> prompt;
  Digest parent = RootKey(codec->fingerprint(), "lookup-bench");
  for (uint32_t i = 0; i < kLookupBlocks; ++i) {
    BlockIdentity identity{parent, BlockKey(parent, std::vector<uint32_t>(kBlockTokens, i)), i};
    QUIRE_RETURN_IF_ERROR(codec->Encode(CodecSpec(), identity, layers, &objects[i]));
    blocks.push_back({identity, objects[i]});
    prompt.push_back(identity.key);
    parent = identity.key;
  }
  QUIRE_RETURN_IF_ERROR(PutBlocks(remote, *ns, blocks));
  return prompt;
}

// `empty`: of a server that answers at once and knows nothing.
absl::Status MeasureLookups(Report& report, const std::string& address, const std::string& empty,
                            store::RemoteStore& remote) {
  store::Namespace ns;
  QUIRE_ASSIGN_OR_RETURN(std::vector<Digest> prompt, StorePrompt(remote, &ns));
  double few = 0;
  for (int clients : {1, 4, 64}) {
    QUIRE_ASSIGN_OR_RETURN(Waits waits, LookUp(address, clients, ns, prompt));
    QUIRE_ASSIGN_OR_RETURN(Waits least, LookUp(empty, clients, ns, prompt));
    const std::string name = absl::StrCat("lookup/grpc/", clients, "-clients");
    const std::string context =
        absl::StrCat(kLookupBlocks, "-block prompt, all stored; a connection a client, one process");
    const std::string call = "the same call, answered with nothing";
    report.Add({absl::StrCat(name, "/p50"), waits.At(0.5), "us", call, least.At(0.5), std::nullopt, context});
    report.Add(
        {absl::StrCat(name, "/p99"), waits.At(0.99), "us", call, least.At(0.99), std::nullopt, context});
    if (clients == 4) few = waits.per_second;
    report.Add({absl::StrCat(name, "/rate"), waits.per_second, "1/s", clients == 64 ? "4 clients" : "",
                clients == 64 ? few : 0, clients == 64 ? std::optional(1.0) : std::nullopt, context});
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RunGrpcBench(Report& report) {
  QUIRE_ASSIGN_OR_RETURN(Chain chain, MakeChain("grpc-bench"));
  store::LocalStoreOptions options;
  options.host_bytes = uint64_t{1} << 30;
  options.host_prefault = true;
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<store::LocalStore> local, store::LocalStore::Create(options));
  auto registry = runtime::NewRegistry();
  store::StoreServices services(local, *registry);
  QUIRE_ASSIGN_OR_RETURN(auto server, runtime::Server::Start({}, services.services()));
  ConstantStore constant(chain);
  QUIRE_ASSIGN_OR_RETURN(auto constant_server, runtime::Server::Start({}, {&constant}));
  QUIRE_ASSIGN_OR_RETURN(auto channel, runtime::NewChannel(server->address()));
  QUIRE_ASSIGN_OR_RETURN(auto constant_channel, runtime::NewChannel(constant_server->address()));
  auto stub = v1::KvStore::NewStub(constant_channel);
  absl::Status status;
  {
    store::RemoteStore remote(channel);
    QUIRE_ASSIGN_OR_RETURN(Digest fingerprint, remote.RegisterLayout(chain.layout));
    const store::Namespace ns{"", fingerprint};
    status = MeasureTransfers(report, remote, ns, chain, *stub);
    if (status.ok()) status = MeasureLookups(report, server->address(), constant_server->address(), remote);
  }
  server->Shutdown(std::chrono::milliseconds(0));
  constant_server->Shutdown(std::chrono::milliseconds(0));
  return status;
}

}  // namespace quire::bench

#include "tests/bench/redis_bench.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/runtime/metrics.h"
#include "services/runtime/server.h"
#include "services/store/client/remote_store.h"
#include "services/store/engine/local_store.h"
#include "services/store/redis/redis_tier.h"
#include "services/store/server/store_services.h"
#include "tests/bench/store_chain.h"
#include "tests/bench/turns.h"
#include "tests/services/store/redis/redis_process.h"
#include "tests/services/store/temp_folder.h"

namespace quire::bench {
namespace {

using store::redis::Client;
using store::redis::Clock;
using store::redis::Command;
using store::redis::Reply;
using store::redis::Request;

constexpr uint64_t kValueBytes = 2 << 20;
constexpr int kValues = kChainBlocks * static_cast<int>(kChainRawBytes / kValueBytes);
constexpr uint64_t kRawBytes = kValues * kValueBytes;
constexpr int kRounds = 5;
constexpr size_t kFinds = 512;

// Raw bytes of the chain's blocks as values, and where they are read to.
class RawValues {
 public:
  RawValues() : out_(kRawBytes) {
    std::mt19937_64 random(7);
    in_.resize(kRawBytes);
    for (uint64_t at = 0; at + 8 <= kRawBytes; at += 8) {
      uint64_t word = random();
      std::memcpy(&in_[at], &word, 8);
    }
    for (int i = 0; i < kValues; ++i) keys_.push_back(absl::StrCat("raw", i));
  }

  absl::Status Set(Client& client) {
    std::vector<Request> requests(kValues);
    for (size_t i = 0; i < requests.size(); ++i)
      requests[i].command = Command({"SET", keys_[i]}, 2, Bytes(in_).subspan(i * kValueBytes, kValueBytes));
    return Execute(client, requests, Reply::Type::kStatus);
  }
  absl::Status Get(Client& client) {
    std::vector<Request> requests(kValues);
    for (size_t i = 0; i < requests.size(); ++i) {
      requests[i].command = Command({"GET", keys_[i]});
      requests[i].into = MutableBytes(out_).subspan(i * kValueBytes, kValueBytes);
    }
    return Execute(client, requests, Reply::Type::kPlaced);
  }
  bool Same() const { return in_ == out_; }

 private:
  static absl::Status Execute(Client& client, std::span<Request> requests, Reply::Type wanted) {
    client.Execute(requests, Clock::now() + std::chrono::seconds(60));
    for (const Request& request : requests) {
      QUIRE_RETURN_IF_ERROR(request.status);
      if (!request.reply.is(wanted)) return store::redis::Unexpected("success", request.reply);
    }
    return absl::OkStatus();
  }

  std::vector<std::string> keys_;
  std::vector<uint8_t> in_, out_;
};

double RateOf(Work& work) { return kRawBytes / work.median(); }  // bytes of raw KV a second

// All layers of a block as bf16, spread over the machine's cores.
class Decoder {
 public:
  explicit Decoder(const Layout& layout)
      : codec_(*BlockCodec::Create(layout, Part::Whole(layout))), out_(kChainRawBytes / 2) {}
  absl::Status Decode(const BlockIdentity& identity, Bytes object) {
    QUIRE_ASSIGN_OR_RETURN(BlockReader reader, BlockReader::Open(codec_, identity, object));
    constexpr size_t kStream = size_t{kBlockTokens} * kChainHeads * kChainDim;
    std::vector<BlockReader::DecodeJob> jobs(kChainLayers);
    for (uint32_t layer = 0; layer < kChainLayers; ++layer) {
      uint16_t* out = out_.data() + 2 * kStream * layer;
      jobs[layer] = {&reader,
                     layer,
                     reader.levels(),
                     {{out, DType::kBf16, kChainHeads * kChainDim, kChainDim},
                      {out + kStream, DType::kBf16, kChainHeads * kChainDim, kChainDim}},
                     {}};
    }
    BlockReader::DecodeLayers(jobs, [](size_t n, absl::FunctionRef<void(size_t)> body) {
      std::atomic<size_t> next{0};
      auto work = [&] {
        for (size_t i; (i = next++) < n;) body(i);
      };
      std::vector<std::jthread> others;
      for (unsigned c = 1; c < std::thread::hardware_concurrency(); ++c) others.emplace_back(work);
      work();
    });
    for (const auto& job : jobs) QUIRE_RETURN_IF_ERROR(job.status);
    return absl::OkStatus();
  }

 private:
  std::shared_ptr<const BlockCodec> codec_;
  std::vector<uint16_t> out_;
};

absl::Status DecodeAll(const Chain& chain, Decoder& decoder) {
  for (size_t i = 0; i < chain.objects.size(); ++i)
    QUIRE_RETURN_IF_ERROR(decoder.Decode(chain.identities[i], chain.objects[i]));
  return absl::OkStatus();
}

// The same blocks as codes in a store behind gRPC, which carries them or (`arena`) only says where they lie.
class ServedStore {
 public:
  absl::Status Start(const Chain& chain, bool arena) {
    store::LocalStoreOptions options;
    options.host_bytes = uint64_t{1} << 30;
    options.host_prefault = true;
    QUIRE_ASSIGN_OR_RETURN(local_, store::LocalStore::Create(options));
    services_ = std::make_unique<store::StoreServices>(local_, *registry_);
    QUIRE_ASSIGN_OR_RETURN(server_, runtime::Server::Start({}, services_->services()));
    server_->SetServing(true);
    QUIRE_ASSIGN_OR_RETURN(auto channel, runtime::NewChannel(server_->address()));
    store::RemoteStoreOptions client;
    if (arena) client.arena_bytes = uint64_t{64} << 20;
    remote_ = std::make_unique<store::RemoteStore>(channel, client);
    if (arena && remote_->arena() == nullptr) return absl::UnavailableError("the store hands out no arena");
    QUIRE_ASSIGN_OR_RETURN(ns_.fingerprint, remote_->RegisterLayout(chain.layout));
    keys_ = chain.keys();
    blocks_ = chain.blocks();
    return absl::OkStatus();
  }
  ~ServedStore() {
    remote_.reset();
    if (server_ != nullptr) server_->Shutdown(std::chrono::milliseconds(0));
  }
  // Every Put must store: what is there goes first, in a time that is small beside the bytes moved.
  absl::Status Put() {
    QUIRE_RETURN_IF_ERROR(remote_->Delete(ns_, keys_, true).status());
    return PutBlocks(*remote_, ns_, blocks_);
  }
  absl::Status Get(const Chain& chain) { return GetAll(*remote_, ns_, chain); }
  absl::Status GetDecoded(const Chain& chain, Decoder& decoder) {
    store::GetSink sink;
    sink.on_block = [&](uint32_t block, Bytes object) {
      return decoder.Decode(chain.identities[block], object);
    };
    sink.on_miss = [](uint32_t, const absl::Status& why) { return why; };
    return remote_->Get(ns_, chain.identities, {}, sink);
  }

 private:
  std::shared_ptr<prometheus::Registry> registry_ = runtime::NewRegistry();
  std::shared_ptr<store::LocalStore> local_;
  std::unique_ptr<store::StoreServices> services_;
  std::unique_ptr<runtime::Server> server_;
  std::unique_ptr<store::RemoteStore> remote_;
  store::Namespace ns_;
  std::vector<Digest> keys_;
  std::vector<store::PutBlock> blocks_;
};

// Codes through the tier: written one by one, as a mover does, read in one batch.
class TierPath {
 public:
  absl::Status Open(const store::redis::TierOptions& options, const Chain& chain) {
    QUIRE_ASSIGN_OR_RETURN(tier_, store::RedisTier::Create(options));
    for (size_t i = 0; i < chain.objects.size(); ++i) {
      QUIRE_ASSIGN_OR_RETURN(BlockHeader header, ParseHeader(chain.objects[i]));
      records_.push_back(RecordOf(header));
      out_.emplace_back(chain.objects[i].size());
      store::ObjectName name{{}, chain.identities[i].key, header.part};
      reads_.push_back({name, static_cast<int>(records_[i].levels), out_.back(), {}});
    }
    finds_.resize(kFinds);
    for (size_t i = 0; i < finds_.size(); ++i) {
      finds_[i].key = i < chain.identities.size() ? chain.identities[i].key
                                                  : Sha256().UpdateU32(static_cast<uint32_t>(i)).Finish();
    }
    return absl::OkStatus();
  }
  absl::Status Write(const Chain& chain) {
    for (size_t i = 0; i < records_.size(); ++i)
      QUIRE_RETURN_IF_ERROR(tier_->Write(reads_[i].name, records_[i], chain.objects[i]));
    return absl::OkStatus();
  }
  absl::Status Read() {
    tier_->Read(reads_);
    for (const auto& read : reads_) QUIRE_RETURN_IF_ERROR(read.status);
    return absl::OkStatus();
  }
  absl::Status Find() {
    tier_->Find(finds_);
    for (const auto& find : finds_) QUIRE_RETURN_IF_ERROR(find.status);
    return absl::OkStatus();
  }
  bool Same(const Chain& chain) const { return out_ == chain.objects; }

 private:
  static store::ObjectRecord RecordOf(const BlockHeader& header) {
    store::ObjectRecord record;
    record.fingerprint = header.fingerprint;
    record.parent = header.identity.parent;
    record.index = header.identity.index;
    record.levels = static_cast<uint32_t>(header.levels.size());
    for (uint32_t l = 0; l < record.levels; ++l)
      record.ends[l] = header.levels[l].offset + header.levels[l].length;
    record.header_bytes = header.header_bytes;
    record.raw_bytes = record.bf16_bytes = kChainRawBytes;
    record.codec = "tq:k4v4";
    return record;
  }

  std::unique_ptr<store::RedisTier> tier_;
  std::vector<store::ObjectRecord> records_;
  std::vector<store::ObjectTier::ReadRequest> reads_;
  std::vector<store::ObjectTier::FindRequest> finds_;
  std::vector<std::vector<uint8_t>> out_;
};

absl::StatusOr<std::unique_ptr<Client>> ClientOf(const std::string& address) {
  store::redis::ClientOptions options;
  options.addresses = {address};
  return Client::Create(options);
}

}  // namespace

absl::Status RunRedisBench(Report& report) {
  store::TempFolder folder;  // for the server's socket and for keys
  QUIRE_ASSIGN_OR_RETURN(auto server, store::redis::RedisProcess::Start(folder.path(), {}));
  QUIRE_ASSIGN_OR_RETURN(Chain chain, MakeChain("redis-bench"));
  RawValues values;
  QUIRE_ASSIGN_OR_RETURN(auto tcp, ClientOf(server->address()));
  QUIRE_ASSIGN_OR_RETURN(auto unix_socket, ClientOf(server->unix_address()));
  ServedStore served, shared;
  QUIRE_RETURN_IF_ERROR(served.Start(chain, /*arena=*/false));
  QUIRE_RETURN_IF_ERROR(shared.Start(chain, /*arena=*/true));
  Decoder decoder(chain.layout);
  store::redis::TierOptions options;
  options.client.addresses = {server->address()};
  TierPath plain, sealed;
  QUIRE_RETURN_IF_ERROR(plain.Open(options, chain));
  options.prefix = "sealed";
  options.hmac_key_file = folder.path() + "/key";
  std::ofstream(options.hmac_key_file) << std::string(32, 'k');
  QUIRE_RETURN_IF_ERROR(sealed.Open(options, chain));

  std::vector<Work> works = {
      {"set/redis-tcp", [&] { return values.Set(*tcp); }, {}},
      {"get/redis-tcp", [&] { return values.Get(*tcp); }, {}},
      {"set/redis-unix", [&] { return values.Set(*unix_socket); }, {}},
      {"get/redis-unix", [&] { return values.Get(*unix_socket); }, {}},
      {"put/codes-grpc", [&] { return served.Put(); }, {}},
      {"get/codes-grpc", [&] { return served.Get(chain); }, {}},
      {"put/codes-arena", [&] { return shared.Put(); }, {}},
      {"get/codes-arena", [&] { return shared.Get(chain); }, {}},
      {"write/tier", [&] { return plain.Write(chain); }, {}},
      {"read/tier", [&] { return plain.Read(); }, {}},
      {"write/tier-hmac", [&] { return sealed.Write(chain); }, {}},
      {"read/tier-hmac", [&] { return sealed.Read(); }, {}},
      {"decode", [&] { return DecodeAll(chain, decoder); }, {}},
      {"get/codes-grpc-decoded", [&] { return served.GetDecoded(chain, decoder); }, {}},
      {"get/codes-arena-decoded", [&] { return shared.GetDecoded(chain, decoder); }, {}}};
  QUIRE_RETURN_IF_ERROR(TakeTurns(works, kRounds));
  if (!values.Same() || !plain.Same(chain) || !sealed.Same(chain))
    return absl::DataLossError("redis gave other bytes back");

  std::string raw = absl::StrCat(kValues, " values of 2 MiB, pipelined");
  std::string coded = absl::StrCat(kChainBlocks, " blocks of 8 MiB raw, ", chain.objects.back().size(),
                                   " bytes coded, raw-equivalent");
  for (size_t i = 0; i < works.size(); ++i) {
    Measurement m{works[i].name, RateOf(works[i]) * 1e-9, "GB/s", "", 0, std::nullopt, i < 4 ? raw : coded};
    if (i >= 2) {  // writing beside writing, reading beside reading
      const bool writes = works[i].name.starts_with("put/") || works[i].name.starts_with("set/") ||
                          works[i].name.starts_with("write/");
      m.baseline = writes ? "redis SET, raw, TCP" : "redis GET, raw, TCP";
      m.baseline_value = RateOf(works[writes ? 0 : 1]) * 1e-9;
    }
    if (works[i].name.ends_with("codes-grpc")) m.goal = 1.5;
    if (works[i].name.ends_with("codes-arena")) m.goal = 6;
    report.Add(m);
  }
  absl::Status failure;
  double find = MedianSeconds([&] { failure.Update(plain.Find()); }, 50);
  QUIRE_RETURN_IF_ERROR(failure);
  report.Add({"find/tier", find * 1e6, "us", "", 0, std::nullopt,
              absl::StrCat(kFinds, " blocks in one batch, ", kChainBlocks, " of them there")});
  return absl::OkStatus();
}

}  // namespace quire::bench

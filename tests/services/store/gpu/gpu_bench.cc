// The store's device tier on a GPU beside what the device and its link can do, as JSON lines and a table
// (DESIGN.md, "What counts as measured"): in one process, and over gRPC from another on the same GPU.
//
//   quire-gpu-bench [--blocks=N] [--batch=N] [--runs=N]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/block/keys.h"
#include "cuda/memory.h"
#include "cuda/stream.h"
#include "services/runtime/metrics.h"
#include "services/runtime/server.h"
#include "services/store/engine/device_tier.h"
#include "services/store/engine/local_store.h"
#include "services/store/engine/put_session.h"
#include "services/store/engine/raw_form.h"
#include "services/store/gpu/cuda_device.h"
#include "services/store/server/store_services.h"
#include "tests/services/store/gpu/ipc_client.h"
#include "tests/services/store/gpu/other_process.h"

namespace quire::store {
namespace {

// The shape of an 8B model: 64 tokens of it are 8 MiB raw.
constexpr uint32_t kLayers = 32, kHeads = 8, kDim = 128;

[[noreturn]] void Fail(const std::string& what) {
  std::fprintf(stderr, "quire-gpu-bench: %s\n", what.c_str());
  std::exit(1);
}
void Check(const absl::Status& status) {
  if (!status.ok()) Fail(status.ToString());
}
template <typename T>
T Check(absl::StatusOr<T> value) {
  if (!value.ok()) Fail(value.status().ToString());
  return *std::move(value);
}

struct Options {
  uint32_t blocks = 128, batch = 64;
  int runs = 5;
};

// Median seconds after two warm-ups.
double Seconds(
    int runs, const std::function<void()>& work, const std::function<void()>& between = [] {}) {
  std::vector<double> times;
  for (int i = 0; i < runs + 2; ++i) {
    auto start = std::chrono::steady_clock::now();
    work();
    std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    if (i >= 2) times.push_back(took.count());
    between();
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options) {
    device_ = Check(CudaDevice::Create());
    layout_ = Layout::Uniform(Sha256().Update("quire-bench").Finish(), kLayers, kHeads, kDim);
    part_ = Part::Whole(layout_);
    block_bytes_ = RawFormBytes(layout_, part_, layout_.dtype);
    raw_bytes_ = block_bytes_ * options.blocks;
    raw_ = Check(device_->Allocate(raw_bytes_));
    out_ = Check(device_->Allocate(raw_bytes_));
    FillRaw();
    LocalStoreOptions store;
    store.host_bytes = uint64_t{1} << 30;
    store.host_prefault = true;
    store.gpu = Check(DeviceTier::Create(device_, uint64_t{3} << 30));
    store.max_announced_bytes = uint64_t{1} << 40;
    store_ = Check(LocalStore::Create(store));
    ns_.fingerprint = Check(store_->RegisterLayout(layout_));
    MakeChain();
  }

  void Run() {
    Baselines();
    Puts();
    Check(store_->AwaitMoved(std::chrono::milliseconds(60'000)));
    PutOne();
    Gets();
    Through();
    Ipc();
    Flood();
    PrintTable();
  }

 private:
  struct Row {
    std::string name, baseline;
    double value, baseline_value;
  };

  void FillRaw() {
    std::vector<uint8_t> block(block_bytes_);
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (size_t e = 0; e < block.size() / 2; ++e)
      StoreElement(layout_.dtype, block.data(), e, normal(random));
    for (uint32_t i = 0; i < options_.blocks; ++i) {
      Device::Copy up{block.data(), raw_.get() + i * block_bytes_, block_bytes_};
      Check(device_->CopyAll({&up, 1}));
    }
  }
  void MakeChain() {
    Digest parent = RootKey(ns_.fingerprint, "gpu");
    for (uint32_t i = 0; i < options_.blocks; ++i) {
      std::vector<uint32_t> tokens(kBlockTokens, i);
      identities_.push_back({parent, BlockKey(parent, tokens), i});
      keys_.push_back(identities_.back().key);
      announces_.push_back({identities_.back(), block_bytes_});
      parent = keys_.back();
    }
  }

  void Report(const std::string& name, double value, const std::string& baseline, double baseline_value,
              const std::string& context) {
    std::printf(
        "{\"name\":\"%s\",\"value\":%.5g,\"unit\":\"GB/s raw\",\"baseline\":\"%s\",\"baseline_value\":%.5g,"
        "\"ratio\":%.4f,\"context\":\"%s\"}\n",
        name.c_str(), value, baseline.c_str(), baseline_value, value / baseline_value, context.c_str());
    std::fflush(stdout);
    rows_.push_back({name, baseline, value, baseline_value});
  }
  void PrintTable() const {
    std::printf("\n%-34s %10s   %-28s %10s %7s\n", "", "GB/s raw", "beside", "GB/s", "ratio");
    for (const Row& row : rows_) {
      std::printf("%-34s %10.1f   %-28s %10.1f %7.2f\n", row.name.c_str(), row.value, row.baseline.c_str(),
                  row.baseline_value, row.value / row.baseline_value);
    }
  }

  // GB/s of one pass over the raw bytes.
  void Baselines() {
    cuda::Stream stream = Check(cuda::Stream::Create());
    auto timed = [&](const std::function<void()>& enqueue, uint64_t bytes) {
      double s = Seconds(options_.runs, [&] {
        enqueue();
        Check(stream.Synchronize());
      });
      return static_cast<double>(bytes) / s * 1e-9;
    };
    copy_ = timed([&] { Check(cuda::CopyOnDevice(stream.ref(), raw_.get(), raw_bytes_, out_.get())); },
                  raw_bytes_);
    const uint64_t link_bytes = uint64_t{256} << 20;
    cuda::PinnedBuffer pinned = Check(cuda::PinnedBuffer::Allocate(link_bytes));
    std::fill_n(pinned.data(), link_bytes, 1);
    down_ = timed([&] { Check(cuda::CopyToHost(stream.ref(), raw_.get(), link_bytes, pinned.data())); },
                  link_bytes);
    up_ = timed([&] { Check(cuda::CopyToDevice(stream.ref(), pinned.data(), link_bytes, out_.get())); },
                link_bytes);
    Report("device copy", copy_, "itself (bytes copied)", copy_, "read and written once each");
    Report("pinned copy, down", down_, "itself", down_, "");
    Report("pinned copy, up", up_, "itself", up_, "");
  }

  // Every block of the chain from device memory, by `threads` sessions each with its own chain.
  void PutAll(const Digest& salt, uint32_t batch) {
    std::vector<BlockAnnounce> announces = announces_;
    for (size_t i = 0; i < announces.size(); ++i) {
      for (Digest* d : {&announces[i].identity.key, &announces[i].identity.parent}) {
        for (size_t b = 0; b < 8; ++b) d->bytes[b] ^= salt.bytes[b];
      }
    }
    PutOptions options;
    options.encode = "tq:k4v4";
    auto session = Check(store_->BeginLocalPut(ns_, announces, options));
    if (session->wanted().size() != announces.size()) Fail("blocks are stored already");
    std::vector<LocalPutSession::DeviceSource> sources;
    for (uint32_t i = 0; i < announces.size(); ++i) {
      sources.push_back({i, raw_.get() + i * block_bytes_});
      if (sources.size() < batch && i + 1 < announces.size()) continue;
      session->CommitFromDevice(sources);
      for (auto& source : sources) Check(source.stored.status());
      sources.clear();
    }
  }
  Digest NextSalt() {
    Digest salt;
    ++salts_;
    std::copy_n(reinterpret_cast<const uint8_t*>(&salts_), 8, salt.bytes.begin());
    return salt;
  }

  std::vector<Digest> Salted(const Digest& salt) const {
    std::vector<Digest> keys = keys_;
    for (Digest& key : keys) {
      for (size_t b = 0; b < 8; ++b) key.bytes[b] ^= salt.bytes[b];
    }
    return keys;
  }
  // Seconds of one put of a chain by each session; what it stored is deleted after, unless `flood`.
  double PutSeconds(uint32_t batch, int threads, bool flood) {
    std::vector<Digest> salts(static_cast<size_t>(threads));
    auto put = [&] {
      for (Digest& salt : salts) salt = NextSalt();
      std::vector<std::thread> pool;
      for (int t = 1; t < threads; ++t)
        pool.emplace_back([&, t] { PutAll(salts[static_cast<size_t>(t)], batch); });
      PutAll(salts[0], batch);
      for (std::thread& thread : pool) thread.join();
    };
    return Seconds(options_.runs, put, [&] {
      Check(store_->AwaitMoved(std::chrono::milliseconds(60'000)));
      for (const Digest& salt : salts) {
        if (!flood) Check(store_->Delete(ns_, Salted(salt), true).status());
      }
    });
  }
  void Puts() {
    const std::string what = "tq:k4v4, 8 MiB raw a block, checksums and commit included";
    for (uint32_t batch : {1u, 16u, options_.batch}) {
      for (int threads : {1, 2, 4}) {
        double s = PutSeconds(batch, threads, false);
        Report(absl::StrCat("put raw, ", batch, " a batch, ", threads, " sessions"),
               static_cast<double>(raw_bytes_) * threads / s * 1e-9, "device copy", copy_, what);
      }
    }
  }
  // Into a full tier: what is there goes down to the host's arena, which is full after a while too.
  void Flood() {
    double s = PutSeconds(16, 2, true);
    Report("put raw into full tiers", static_cast<double>(raw_bytes_) * 2 / s * 1e-9, "device copy", copy_,
           "16 a batch, 2 sessions");
  }
  // The chain that is then read.
  void PutOne() { PutAll(Digest(), options_.batch); }

  std::vector<DeviceBlock> OpenAll(const LocalStore::View& view) {
    std::vector<DeviceBlock> blocks;
    for (const BlockIdentity& identity : identities_)
      blocks.push_back(Check(store_->OpenOnDevice(view, identity)));
    return blocks;
  }

  void Gets() {
    auto view = Check(store_->Resolve(ns_, {}));
    const CodedForm form{&view.layout->layout, view.layout->fingerprint, view.part};
    double opened = Seconds(options_.runs, [&] { OpenAll(view); });
    uint64_t coded = OpenAll(view).front().object->record.bytes();
    std::printf(
        "{\"name\":\"open\",\"value\":%.4g,\"unit\":\"us a block\",\"context\":\"%u blocks; %llu coded bytes "
        "each\"}\n",
        opened / options_.blocks * 1e6, options_.blocks, static_cast<unsigned long long>(coded));
    const double raw = static_cast<double>(raw_bytes_) * 1e-9;
    for (int levels : {3, 2, 1}) {
      const std::string bits = absl::StrCat(levels + 1, " bits");
      double codes = Seconds(options_.runs, [&] {
        std::vector<DeviceBlock> blocks = OpenAll(view);
        std::vector<Device::Copy> copies;
        for (size_t i = 0; i < blocks.size(); ++i) {
          uint64_t bytes = blocks[i].object->record.ends[static_cast<size_t>(levels) - 1];
          copies.push_back({blocks[i].data.get(), out_.get() + i * block_bytes_, bytes});
        }
        Check(device_->CopyAll(copies));
      });
      Report("get codes on device, " + bits, raw / codes, "device copy", copy_, "into the reader's buffer");
      double decoded = Seconds(options_.runs, [&] {
        std::vector<DeviceBlock> blocks = OpenAll(view);
        std::vector<Device::DecodeJob> jobs;
        for (size_t i = 0; i < blocks.size(); ++i)
          jobs.push_back({blocks[i].object->header.get(),
                          levels,
                          blocks[i].data.get(),
                          out_.get() + i * block_bytes_,
                          true,
                          {}});
        device_->Decode(form, 0, view.part.layers(), DType::kBf16, jobs);
        for (const auto& job : jobs) Check(job.status);
      });
      Report("get decoded on device, " + bits, raw / decoded, "device copy", copy_,
             "bf16, into the reader's buffer");
    }
    CheckDecoded();
  }
  // The last decoding, of 2 bits, is near what was put: a benchmark of wrong bytes measures nothing.
  void CheckDecoded() {
    for (uint32_t i : {0u, options_.blocks - 1}) {
      std::vector<uint8_t> a(block_bytes_), b(block_bytes_);
      std::vector<Device::Copy> copies{{raw_.get() + i * block_bytes_, a.data(), block_bytes_},
                                       {out_.get() + i * block_bytes_, b.data(), block_bytes_}};
      Check(device_->CopyAll(copies));
      double miss = 0, square = 0;
      for (size_t e = 0; e < block_bytes_ / 2; ++e) {
        double x = LoadElement(DType::kBf16, a.data(), e), y = LoadElement(DType::kBf16, b.data(), e);
        miss += (x - y) * (x - y);
        square += x * x;
      }
      if (!(miss / square < 0.13)) Fail(absl::StrCat("block ", i, " decoded is ", miss / square, " off"));
    }
  }

  // From and to the host: what gRPC clients get, without gRPC.
  void Through() {
    auto view = Check(store_->Resolve(ns_, {}));
    const CodedForm form{&view.layout->layout, view.layout->fingerprint, view.part};
    const uint32_t count = std::min(options_.blocks, 64u);
    const double raw = static_cast<double>(block_bytes_) * count * 1e-9;
    std::vector<DeviceBlock> blocks;
    for (uint32_t i = 0; i < count; ++i) blocks.push_back(Check(store_->OpenOnDevice(view, identities_[i])));
    uint64_t coded = blocks.front().object->record.bytes();
    cuda::PinnedBuffer host = Check(cuda::PinnedBuffer::Allocate(block_bytes_ * count));
    double down = Seconds(options_.runs, [&] {
      std::vector<Device::Copy> copies;
      for (uint32_t i = 0; i < count; ++i)
        copies.push_back({blocks[i].data.get(), host.data() + i * coded, coded});
      Check(device_->CopyAll(copies));
    });
    Report("codes to pinned memory", raw / down, "pinned copy, down", down_, "4 bits");
    double up = Seconds(options_.runs, [&] {
      std::vector<Device::Copy> copies;
      for (uint32_t i = 0; i < count; ++i)
        copies.push_back({host.data() + i * coded, out_.get() + i * coded, coded});
      Check(device_->CopyAll(copies));
    });
    Report("codes from pinned memory", raw / up, "pinned copy, up", up_, "4 bits");
    double decoded = Seconds(options_.runs, [&] {
      std::vector<Device::DecodeJob> jobs;
      for (uint32_t i = 0; i < count; ++i)
        jobs.push_back({blocks[i].object->header.get(),
                        3,
                        blocks[i].data.get(),
                        host.data() + i * block_bytes_,
                        false,
                        {}});
      device_->Decode(form, 0, view.part.layers(), DType::kBf16, jobs);
      for (const auto& job : jobs) Check(job.status);
    });
    Report("get decoded to the host", raw / decoded, "pinned copy, down", down_, "bf16 over the link");
    double put = Seconds(options_.runs, [&] {
      PutOptions options;
      options.encode = "tq:k4v4";
      std::vector<BlockAnnounce> announces;
      Digest salt = NextSalt();
      for (uint32_t i = 0; i < count; ++i) {
        announces.push_back(announces_[i]);
        for (Digest* d : {&announces[i].identity.key, &announces[i].identity.parent}) {
          for (size_t b = 0; b < 8; ++b) d->bytes[b] ^= salt.bytes[b];
        }
      }
      auto session = Check(store_->BeginLocalPut(ns_, announces, options));
      for (uint32_t i = 0; i < count; ++i) {
        Check(session->Write(i, 0, {host.data() + i * block_bytes_, block_bytes_}));
        Check(session->Commit(i).status());
      }
    });
    Report("put raw from the host", raw / put, "pinned copy, up", up_, "one session, block by block");
  }

  // A client in another process, over gRPC, whose KV is in a buffer of its own on the GPU.
  void Ipc() {
    auto registry = runtime::NewRegistry();
    StoreServices services(store_, *registry, {});
    auto server = Check(runtime::Server::Start({}, services.services()));
    {
      OtherProcess client(kBenchClient,
                          absl::StrCat(server->address(), " ", options_.blocks, " ", options_.runs));
      for (std::string line = client.Line(); !line.empty() && line != "end"; line = client.Line()) {
        size_t space = line.find(' ');
        double seconds = std::atof(line.substr(space + 1).c_str());
        Report("client by IPC, " + line.substr(0, space), static_cast<double>(raw_bytes_) / seconds * 1e-9,
               "device copy", copy_, "one gRPC call, bytes through the client's buffer on the GPU");
      }
      if (client.Wait() != 0) Fail("the client failed");
    }
    server->Shutdown(std::chrono::milliseconds(0));
  }

  const Options options_;
  std::shared_ptr<CudaDevice> device_;
  Layout layout_;
  Part part_;
  uint64_t block_bytes_ = 0, raw_bytes_ = 0;
  std::shared_ptr<uint8_t> raw_, out_;
  std::shared_ptr<LocalStore> store_;
  Namespace ns_;
  std::vector<BlockIdentity> identities_;
  std::vector<Digest> keys_;
  std::vector<BlockAnnounce> announces_;
  double copy_ = 0, down_ = 0, up_ = 0;
  uint64_t salts_ = 0;
  std::vector<Row> rows_;
};

}  // namespace
}  // namespace quire::store

int main(int argc, char** argv) {
  if (const char* task = std::getenv(quire::store::kBenchClient)) return quire::store::RunBenchClient(task);
  quire::store::Options options;
  for (int i = 1; i < argc; ++i) {
    std::string arg = argv[i];
    size_t at = arg.find('=');
    uint32_t value = 0;
    std::string name = arg.substr(0, at);
    if (at == std::string::npos || !absl::SimpleAtoi(arg.substr(at + 1), &value) || value == 0) {
      std::fprintf(stderr, "quire-gpu-bench: %s is not --name=N\n", argv[i]);
      return 2;
    }
    if (name == "--blocks") {
      options.blocks = value;
    } else if (name == "--batch") {
      options.batch = value;
    } else if (name == "--runs") {
      options.runs = static_cast<int>(value);
    } else {
      std::fprintf(stderr, "quire-gpu-bench: there is no %s\n", name.c_str());
      return 2;
    }
  }
  quire::store::Bench(options).Run();
  return 0;
}

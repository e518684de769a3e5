#include "tests/bench/disk_bench.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/disk/disk_tier.h"
#include "tests/services/store/temp_folder.h"

namespace quire::bench {
namespace {

namespace fs = std::filesystem;
using store::DiskSync;
using store::DiskTier;
using store::DiskTierOptions;
using store::ObjectName;
using store::ObjectRecord;
using store::ObjectTier;

constexpr uint32_t kObjects = 256;
constexpr uint64_t kObjectBytes = 2'200'000;  // 64 tokens of an 8B model as tq:k4v4
constexpr size_t kBatch = 32;
constexpr size_t kPlainRead = 4 << 20;
constexpr size_t kPage = 4096;
constexpr int kThreads = 4;
constexpr uint32_t kRestartEntries = 100'000;

ObjectName NameOf(uint32_t n) {
  return {Sha256().Update("tenant").Finish(), Sha256().UpdateU32(n).Finish(), {0, 32, 0, 8}};
}

// Three levels, as tq:k4v4 makes: half of the bytes in the first, a quarter in each other.
ObjectRecord RecordOf(uint32_t n, uint64_t bytes) {
  ObjectRecord r;
  r.fingerprint = Sha256().Update("layout").Finish();
  r.parent = Sha256().UpdateU32(n - 1).Finish();
  r.index = n;
  r.levels = 3;
  r.ends = {bytes / 2, bytes / 4 * 3, bytes, 0};
  r.header_bytes = static_cast<uint32_t>(std::min<uint64_t>(10'000, bytes / 4));
  r.raw_bytes = r.bf16_bytes = 8 << 20;
  r.codec = "tq:k4v4";
  return r;
}

std::vector<uint8_t> RandomBytes(size_t n) {
  std::vector<uint8_t> out(n);
  std::mt19937_64 random(1);
  for (size_t i = 0; i + 8 <= n; i += 8) {
    uint64_t word = random();
    std::memcpy(&out[i], &word, 8);
  }
  return out;
}

double SecondsOf(const std::function<void()>& work) {
  auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Of this process's processors, all threads together.
double ProcessorSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

std::vector<fs::path> BlobFiles(const std::string& folder) {
  std::vector<fs::path> out;
  for (const auto& f : fs::directory_iterator(folder))
    if (f.path().extension() == ".blob") out.push_back(f.path());
  return out;
}

// Drops the folder's clean pages from the page cache; no privilege is needed for one's own files.
void DropPages(const std::string& folder) {
  for (const auto& f : fs::directory_iterator(folder)) {
    int fd = open(f.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    fdatasync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
  }
}

// Reads all of the files with plain large reads, in a random order of pieces on `threads` threads; bytes
// read.
uint64_t ReadPlainly(const std::vector<fs::path>& files, bool direct, int threads) {
  struct Piece {
    int fd;
    uint64_t at;
  };
  std::vector<Piece> pieces;
  std::vector<int> fds;
  for (const fs::path& file : files) {
    int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
    if (fd < 0) continue;
    fds.push_back(fd);
    for (uint64_t at = 0; at < fs::file_size(file); at += kPlainRead) pieces.push_back({fd, at});
  }
  std::shuffle(pieces.begin(), pieces.end(),
               std::mt19937(3));  // objects are not asked for in file order either
  std::atomic<size_t> next{0};
  std::atomic<uint64_t> bytes{0};
  auto read = [&] {
    std::unique_ptr<void, decltype(&std::free)> buffer(std::aligned_alloc(kPage, kPlainRead), &std::free);
    for (size_t i = next++; i < pieces.size(); i = next++) {
      ssize_t n = pread(pieces[i].fd, buffer.get(), kPlainRead, static_cast<off_t>(pieces[i].at));
      if (n > 0) bytes += static_cast<uint64_t>(n);
    }
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(read);
  read();
  for (std::thread& t : others) t.join();
  for (int fd : fds) close(fd);
  return bytes;
}

// Reads all objects in a random order, a batch at a time, into memory that a store would have reserved.
absl::Status ReadObjects(DiskTier& tier, std::vector<std::vector<uint8_t>>& out) {
  std::vector<uint32_t> order(kObjects);
  for (uint32_t i = 0; i < kObjects; ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), std::mt19937(2));
  for (size_t begin = 0; begin < order.size(); begin += kBatch) {
    std::vector<ObjectTier::ReadRequest> requests;
    for (size_t i = begin; i < std::min(order.size(), begin + kBatch); ++i)
      requests.push_back({NameOf(order[i]), 3, out[i - begin], {}});
    tier.Read(requests);
    for (const auto& r : requests) QUIRE_RETURN_IF_ERROR(r.status);
  }
  return absl::OkStatus();
}

double Median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

enum class Cache { kDirect, kDropped, kHot };

// The tier and plain reads take turns, so that both meet the same state of the device.
absl::Status MeasureReads(Report& report, const DiskTierOptions& options, Cache cache) {
  DiskTierOptions reading = options;
  reading.direct_io = cache == Cache::kDirect;
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<DiskTier> tier, DiskTier::Open(reading));
  if (reading.direct_io && !tier->direct_io()) return absl::OkStatus();  // a file system without direct I/O
  std::vector<fs::path> files = BlobFiles(options.folder);
  std::vector<std::vector<uint8_t>> out(kBatch, std::vector<uint8_t>(kObjectBytes));
  absl::Status failure;
  std::vector<double> get, get_cpu, plain_one, plain_many, plain_cpu;
  uint64_t plain_bytes = 0;
  auto prepare = [&] {
    if (cache != Cache::kHot) DropPages(options.folder);
  };
  if (cache == Cache::kHot) ReadPlainly(files, false, 1);
  QUIRE_RETURN_IF_ERROR(ReadObjects(*tier, out));  // opens the files and fills the block cache
  for (int round = 0; round < 7; ++round) {
    prepare();
    plain_one.push_back(SecondsOf([&] { plain_bytes = ReadPlainly(files, reading.direct_io, 1); }));
    prepare();
    double before = ProcessorSeconds();
    get.push_back(SecondsOf([&] { failure.Update(ReadObjects(*tier, out)); }));
    get_cpu.push_back(ProcessorSeconds() - before);
    prepare();
    before = ProcessorSeconds();
    plain_many.push_back(SecondsOf([&] { plain_bytes = ReadPlainly(files, reading.direct_io, kThreads); }));
    plain_cpu.push_back(ProcessorSeconds() - before);
  }
  QUIRE_RETURN_IF_ERROR(failure);
  const char* name = cache == Cache::kDirect    ? "disk-get/direct-io"
                     : cache == Cache::kDropped ? "disk-get/page-cache-dropped"
                                                : "disk-get/page-cache-hot";
  double rate = 1e-9 * static_cast<double>(kObjects * kObjectBytes) / Median(get);
  double one = 1e-9 * static_cast<double>(plain_bytes) / Median(plain_one);
  double many = 1e-9 * static_cast<double>(plain_bytes) / Median(plain_many);
  std::string context = absl::StrCat(kObjects, " objects of ", kObjectBytes, " bytes, batches of ", kBatch,
                                     ", checksums verified; both by ", kThreads,
                                     " threads, in random order; processor seconds a GB: ",
                                     Median(get_cpu) / (1e-9 * kObjects * kObjectBytes), " and ",
                                     Median(plain_cpu) / (1e-9 * static_cast<double>(plain_bytes)));
  report.Add({name, rate, "GB/s", "plain 4 MiB reads", many, 0.7, context});
  report.Add({absl::StrCat(name, "/against-one-thread"), rate, "GB/s", "plain 4 MiB reads by one thread", one,
              std::nullopt, context});
  return absl::OkStatus();
}

// A full tier in steady use: each write evicts the oldest object, and one in ten is demoted before.
absl::Status MeasureWrites(Report& report, DiskSync sync, const char* name) {
  store::TempFolder folder;
  DiskTierOptions options;
  options.folder = folder.path();
  options.capacity_bytes = uint64_t{1} << 40;
  options.sync = sync;
  options.write_buffer_bytes = 16 << 20;
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<DiskTier> tier, DiskTier::Open(options));
  constexpr uint32_t kLive = 128, kWrites = 640;
  constexpr uint64_t kBytes = kObjectBytes / 4;
  std::vector<uint8_t> bytes = RandomBytes(kBytes);
  absl::Status failure;
  double seconds = SecondsOf([&] {
    for (uint32_t i = 0; i < kWrites && failure.ok(); ++i) {
      failure.Update(tier->Write(NameOf(i), RecordOf(i, kBytes), bytes));
      if (i % 10 == 0 && i >= kLive / 2) {
        ObjectRecord cold = RecordOf(i - kLive / 2, kBytes);
        cold.levels = 2;
        failure.Update(tier->DropLevels(NameOf(i - kLive / 2), cold));
      }
      if (ObjectName old = NameOf(i - kLive); i >= kLive) failure.Update(tier->Remove({&old, 1}));
    }
    failure.Update(tier->Flush());
    failure.Update(tier->CollectGarbage());
  });
  QUIRE_RETURN_IF_ERROR(failure);
  DiskTier::Figures f = tier->figures();
  auto gigabytes = [](uint64_t n) { return 1e-9 * static_cast<double>(n); };
  report.Add({absl::StrCat("disk-put/", name), gigabytes(f.user_bytes) / seconds, "GB/s", "", 0, std::nullopt,
              "one writer, evicting the oldest, all written out at the end"});
  report.Add({absl::StrCat("disk-write-amplification/", name),
              gigabytes(f.log_bytes + f.flushed_bytes + f.compacted_bytes), "GB", "bytes of objects written",
              gigabytes(f.user_bytes), std::nullopt,
              absl::StrCat("log ", f.log_bytes >> 20, ", flushed ", f.flushed_bytes >> 20, ", rewritten ",
                           f.compacted_bytes >> 20, " MiB; ", f.blob_bytes >> 20, " MiB of files hold ",
                           tier->used_bytes() >> 20, " MiB")});
  return absl::OkStatus();
}

absl::Status MeasureRestart(Report& report) {
  store::TempFolder folder;
  DiskTierOptions options;
  options.folder = folder.path();
  options.capacity_bytes = uint64_t{1} << 40;
  options.sync = DiskSync::kNone;
  constexpr uint64_t kBytes = 2400;  // levels just large enough for blob files, as real ones are
  {
    QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<DiskTier> tier, DiskTier::Open(options));
    std::vector<uint8_t> bytes = RandomBytes(kBytes);
    for (uint32_t i = 0; i < kRestartEntries; ++i)
      QUIRE_RETURN_IF_ERROR(tier->Write(NameOf(i), RecordOf(i, kBytes), bytes));
  }
  std::vector<double> seconds;
  absl::Status failure;
  for (int round = 0; round < 3; ++round) {
    DropPages(options.folder);
    uint32_t found = 0;
    seconds.push_back(SecondsOf([&] {
      auto tier = DiskTier::Open(options);
      failure.Update(tier.status());
      if (tier.ok()) failure.Update((*tier)->Scan([&](const ObjectName&, const ObjectRecord&) { ++found; }));
    }));
    QUIRE_RETURN_IF_ERROR(failure);
    if (found != kRestartEntries)
      return absl::InternalError(
          absl::StrCat("a restart found ", found, " of ", kRestartEntries, " objects"));
  }
  double median = Median(seconds);
  double terabyte = median * (1e12 / 2097152 / kRestartEntries);
  report.Add(
      {"disk-restart", median, "s", "", 0, std::nullopt,
       absl::StrCat(kRestartEntries,
                    " entries, page cache dropped; 1 TB of 2 MiB objects by proportion: ", terabyte, " s")});
  return absl::OkStatus();
}

}  // namespace

absl::Status RunDiskBench(Report& report) {
  {
    store::TempFolder folder;
    DiskTierOptions options;
    options.folder = folder.path();
    options.capacity_bytes = uint64_t{1} << 40;
    options.sync = DiskSync::kNone;
    options.read_threads = kThreads;
    {
      QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<DiskTier> tier, DiskTier::Open(options));
      std::vector<uint8_t> bytes = RandomBytes(kObjectBytes);
      for (uint32_t i = 0; i < kObjects; ++i)
        QUIRE_RETURN_IF_ERROR(tier->Write(NameOf(i), RecordOf(i, kObjectBytes), bytes));
      QUIRE_RETURN_IF_ERROR(tier->Flush());
    }
    for (Cache cache : {Cache::kDirect, Cache::kDropped, Cache::kHot})
      QUIRE_RETURN_IF_ERROR(MeasureReads(report, options, cache));
  }
  QUIRE_RETURN_IF_ERROR(MeasureWrites(report, DiskSync::kLog, "log"));
  QUIRE_RETURN_IF_ERROR(MeasureWrites(report, DiskSync::kNone, "no-log"));
  return MeasureRestart(report);
}

}  // namespace quire::bench

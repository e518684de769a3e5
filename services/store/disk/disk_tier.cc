#include "services/store/disk/disk_tier.h"

#include <rocksdb/write_batch.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/disk/levels.h"

namespace quire::store {
namespace {

constexpr uint64_t kMinCapacity = 1 << 20;
constexpr size_t kNamesPerBatch = 512;

Bytes LevelOf(const ObjectRecord& record, Bytes object, uint32_t level) {
  uint64_t begin = level == 0 ? 0 : record.ends[level - 1];
  return object.subspan(begin, record.ends[level] - begin);
}

absl::Status CheckOptions(const DiskTierOptions& options) {
  if (options.folder.empty()) return absl::InvalidArgumentError("the disk tier needs a folder");
  if (options.capacity_bytes < kMinCapacity) {
    return absl::InvalidArgumentError(absl::StrCat("disk tier of ", options.capacity_bytes,
                                                   " bytes: at least ", kMinCapacity, " are needed"));
  }
  if (!(options.max_garbage >= 0.05 && options.max_garbage <= 10)) {
    return absl::InvalidArgumentError(
        absl::StrCat("disk tier with a garbage share of ", options.max_garbage, ": 0.05 to 10 are taken"));
  }
  if (options.read_threads < 1 || options.read_threads > 256) {
    return absl::InvalidArgumentError(
        absl::StrCat("disk tier with ", options.read_threads, " read threads: 1 to 256 are taken"));
  }
  if (options.write_buffer_bytes < (1 << 20) || options.max_open_files < 64) {
    return absl::InvalidArgumentError(
        absl::StrCat("disk tier with write buffers of ", options.write_buffer_bytes, " bytes and ",
                     options.max_open_files, " open files: at least 1048576 and 64 are needed"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<DiskTier>> DiskTier::Open(const DiskTierOptions& options) {
  QUIRE_RETURN_IF_ERROR(CheckOptions(options));
  std::error_code error;
  std::filesystem::create_directories(options.folder, error);
  if (error) {
    return absl::FailedPreconditionError(
        absl::StrCat("disk folder ", options.folder, " cannot be made: ", error.message()));
  }
  bool direct_io = options.direct_io && TakesDirectIo(options.folder);
  if (options.direct_io && !direct_io)
    spdlog::warn("disk folder {} refuses direct I/O: the page cache is used", options.folder);
  std::shared_ptr<DiskTier> tier(new DiskTier(options, direct_io));
  {
    absl::MutexLock lock(&tier->db_mu_);
    QUIRE_RETURN_IF_ERROR(tier->Reopen());
  }
  tier->collector_ = std::thread([t = tier.get()] { t->CollectInBackground(); });
  return tier;
}

DiskTier::DiskTier(DiskTierOptions options, bool direct_io)
    : options_(std::move(options)),
      direct_io_(direct_io),
      faults_(options_.faults != nullptr ? options_.faults : std::make_shared<FaultPoints>()),
      events_(std::make_shared<DatabaseEvents>()),
      readers_(options_.read_threads - 1) {}

DiskTier::~DiskTier() {
  {
    std::lock_guard lock(churn_mu_);
    stopping_ = true;
  }
  cancel_ = true;
  churn_changed_.notify_all();
  if (collector_.joinable()) collector_.join();
}

absl::Status DiskTier::Reopen() {
  db_.reset();
  QUIRE_ASSIGN_OR_RETURN(db_, Database::Open(options_, direct_io_, events_, options_.faults));
  events_->SetRunning();
  if (absl::Status status = CountStored(); !status.ok()) {
    db_.reset();
    return status;
  }
  return absl::OkStatus();
}

absl::Status DiskTier::CountStored() {
  Delta sum;
  absl::Status status = VisitRecords(
      [&](const ObjectName&, const ObjectRecord& record) {
        ++sum.objects;
        sum.charge += static_cast<int64_t>(Charge(record));
        sum.bytes += static_cast<int64_t>(record.bytes());
      },
      [](std::string) {});
  if (!status.ok()) return status;
  objects_ = static_cast<uint64_t>(sum.objects);
  used_ = static_cast<uint64_t>(sum.charge);
  live_bytes_ = static_cast<uint64_t>(sum.bytes);
  return absl::OkStatus();
}

absl::Status DiskTier::EnsureWritable() {
  {
    absl::ReaderMutexLock lock(&db_mu_);
    if (db_ != nullptr && !events_->stopped()) return absl::OkStatus();
  }
  return Recover();
}

absl::Status DiskTier::Recover() {
  cancel_ = true;  // a compaction would keep the lock
  absl::MutexLock lock(&db_mu_);
  cancel_ = false;
  if (db_ != nullptr && !events_->stopped()) return absl::OkStatus();
  // After milder errors RocksDB resumes; after the others only its log says what it holds.
  rocksdb::Status resumed = db_ == nullptr ? rocksdb::Status::Aborted("closed") : db_->db().Resume();
  if (resumed.IsNoSpace()) return FromRocks(resumed, "the disk tier is full");
  if (!resumed.ok()) {
    if (absl::Status status = Reopen(); !status.ok())
      return absl::UnavailableError(absl::StrCat("the disk tier does not open again: ", status.ToString()));
  }
  events_->SetRunning();
  ++recoveries_;
  spdlog::info("disk tier writes again");
  return DeleteDoubtful();
}

absl::Status DiskTier::DeleteDoubtful() {
  std::set<ObjectName> names;
  {
    std::lock_guard lock(doubtful_mu_);
    names.swap(doubtful_);
  }
  if (names.empty()) return absl::OkStatus();
  rocksdb::WriteBatch batch;
  for (const ObjectName& name : names) {
    std::string key = name.Encode();
    batch.Delete(db_->entries(), key);
    for (uint32_t l = 0; l < kMaxLevels; ++l) batch.Delete(db_->levels(), LevelKey(key, l));
  }
  absl::Status status = Commit(batch, false);
  if (!status.ok()) {
    std::lock_guard lock(doubtful_mu_);
    doubtful_.merge(names);
    return status;
  }
  return CountStored();
}

absl::Status DiskTier::Commit(rocksdb::WriteBatch& batch, bool durable) {
  rocksdb::WriteOptions options;
  options.sync = durable && options_.sync == DiskSync::kSync;
  options.disableWAL = options_.sync == DiskSync::kNone;
  options.protection_bytes_per_key = 8;
  return FromRocks(db_->db().Write(options, &batch), "writing to the disk tier");
}

absl::StatusOr<ObjectRecord> DiskTier::Stored(const std::string& key) {
  rocksdb::PinnableSlice value;
  rocksdb::Status s = db_->db().Get({}, db_->entries(), key, &value);
  if (!s.ok()) return FromRocks(s, "reading a record of the disk tier");
  return ObjectRecord::Parse(FromSlice(value));
}

uint64_t DiskTier::Charge(const ObjectRecord& record) const {
  return ObjectName::kEncodedBytes + record.Serialize().size() +
         record.levels * (kLevelKeyBytes + kCheckBytes) + record.bytes();
}

bool DiskTier::Reserve(int64_t charge) {
  uint64_t used = used_.load();
  do {
    if (charge > 0 && used + static_cast<uint64_t>(charge) > options_.capacity_bytes) return false;
  } while (!used_.compare_exchange_weak(used, used + static_cast<uint64_t>(charge)));
  return true;
}

void DiskTier::Apply(const Delta& delta) {
  used_ += static_cast<uint64_t>(delta.charge);
  live_bytes_ += static_cast<uint64_t>(delta.bytes);
  objects_ += static_cast<uint64_t>(delta.objects);
}

DiskTier::Stripe& DiskTier::StripeOf(const ObjectName& name) {
  return stripes_[absl::HashOf(name) % kStripes];
}

std::vector<std::unique_lock<std::mutex>> DiskTier::LockAll(std::span<const ObjectName> names) {
  std::set<Stripe*>
      stripes;  // in the order of their addresses, so that two callers cannot wait for each other
  for (const ObjectName& name : names) stripes.insert(&StripeOf(name));
  std::vector<std::unique_lock<std::mutex>> locks;
  for (Stripe* stripe : stripes) locks.emplace_back(stripe->mu);
  return locks;
}

absl::Status DiskTier::Write(const ObjectName& name, const ObjectRecord& record, Bytes object) {
  QUIRE_RETURN_IF_ERROR(record.Validate());
  if (object.size() != record.bytes()) {
    return absl::InvalidArgumentError(absl::StrCat("object of ", object.size(), " bytes whose record states ",
                                                   record.bytes(), " in ", record.levels, " levels"));
  }
  faults_->DelayHere(Fault::kSlowTier);
  QUIRE_RETURN_IF_ERROR(EnsureWritable());
  QUIRE_RETURN_IF_ERROR(AwaitRoom());
  absl::ReaderMutexLock lock(&db_mu_);
  if (db_ == nullptr) return absl::UnavailableError("the disk tier is closed after an error");
  std::lock_guard stripe(StripeOf(name).mu);
  return WriteLocked(name, record, object);
}

absl::Status DiskTier::WriteLocked(const ObjectName& name, const ObjectRecord& record, Bytes object) {
  std::string key = name.Encode();
  std::string value = record.Serialize();
  absl::StatusOr<ObjectRecord> old = Stored(key);
  if (!old.ok() && absl::IsUnavailable(old.status())) return old.status();

  Delta delta{1, static_cast<int64_t>(Charge(record)), static_cast<int64_t>(record.bytes())};
  // A damaged record was never counted, but its levels may be there: all that are not overwritten go.
  uint32_t old_levels = absl::IsNotFound(old.status()) ? 0 : kMaxLevels;
  if (old.ok()) {
    old_levels = old->levels;
    delta.objects = 0;
    delta.charge -= static_cast<int64_t>(Charge(*old));
    delta.bytes -= static_cast<int64_t>(old->bytes());
  }
  if (!Reserve(delta.charge)) {
    return absl::ResourceExhaustedError(absl::StrCat("disk tier has no room for ", delta.charge, " bytes: ",
                                                     used_bytes(), " of ", capacity_bytes(), " used"));
  }

  rocksdb::WriteBatch batch(object.size() + 4096);
  for (uint32_t l = 0; l < record.levels; ++l)
    PutLevel(batch, db_->levels(), LevelKey(key, l), LevelOf(record, object, l));
  for (uint32_t l = record.levels; l < old_levels; ++l) batch.Delete(db_->levels(), LevelKey(key, l));
  batch.Put(db_->entries(), key, value);

  faults_->CrashHere(Fault::kCrashBeforeDiskCommit);
  absl::Status status = Commit(batch, /*durable=*/true);
  if (status.ok()) faults_->CrashHere(Fault::kCrashAfterDiskCommit);
  std::lock_guard doubtful(doubtful_mu_);
  if (!status.ok()) {
    used_ -= static_cast<uint64_t>(delta.charge);
    doubtful_.insert(name);
    return status;
  }
  doubtful_.erase(name);
  Apply({delta.objects, 0, delta.bytes});
  uint64_t written =
      object.size() + key.size() + value.size() + record.levels * (kLevelKeyBytes + kCheckBytes);
  user_bytes_ += written;
  NoteChurn(written);
  return status;
}

absl::Status DiskTier::DropLevels(const ObjectName& name, const ObjectRecord& record) {
  QUIRE_RETURN_IF_ERROR(record.Validate());
  QUIRE_RETURN_IF_ERROR(EnsureWritable());
  absl::ReaderMutexLock lock(&db_mu_);
  if (db_ == nullptr) return absl::UnavailableError("the disk tier is closed after an error");
  std::lock_guard stripe(StripeOf(name).mu);
  std::string key = name.Encode();
  QUIRE_ASSIGN_OR_RETURN(ObjectRecord old, Stored(key));
  if (record.levels > old.levels || record.ends != old.ends || record.header_bytes != old.header_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "dropping to ", record.levels, " levels and ", record.bytes(), " bytes: the stored object has ",
        old.levels, " levels and ", old.bytes(), " bytes, or others that were made"));
  }
  rocksdb::WriteBatch batch;
  for (uint32_t l = record.levels; l < old.levels; ++l) batch.Delete(db_->levels(), LevelKey(key, l));
  std::string value = record.Serialize();
  batch.Put(db_->entries(), key, value);
  QUIRE_RETURN_IF_ERROR(Commit(batch, /*durable=*/false));
  Apply({0, static_cast<int64_t>(Charge(record)) - static_cast<int64_t>(Charge(old)),
         static_cast<int64_t>(record.bytes()) - static_cast<int64_t>(old.bytes())});
  user_bytes_ += key.size() + value.size();
  NoteChurn(old.bytes() - record.bytes());
  return absl::OkStatus();
}

absl::Status DiskTier::Remove(std::span<const ObjectName> names) {
  std::vector<ObjectName> sorted(names.begin(), names.end());
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  for (std::span<const ObjectName> rest = sorted; !rest.empty();) {
    std::span<const ObjectName> some = rest.first(std::min(rest.size(), kNamesPerBatch));
    rest = rest.subspan(some.size());
    QUIRE_RETURN_IF_ERROR(EnsureWritable());
    absl::ReaderMutexLock lock(&db_mu_);
    if (db_ == nullptr) return absl::UnavailableError("the disk tier is closed after an error");
    QUIRE_RETURN_IF_ERROR(RemoveSome(some));
  }
  return absl::OkStatus();
}

absl::Status DiskTier::RemoveSome(std::span<const ObjectName> sorted) {
  std::vector<std::unique_lock<std::mutex>> locks = LockAll(sorted);
  rocksdb::WriteBatch batch;
  Delta delta;
  for (const ObjectName& name : sorted) {
    std::string key = name.Encode();
    absl::StatusOr<ObjectRecord> old = Stored(key);
    if (absl::IsNotFound(old.status())) continue;
    if (absl::IsUnavailable(old.status())) return old.status();
    batch.Delete(db_->entries(), key);
    uint32_t levels = old.ok() ? old->levels : kMaxLevels;
    for (uint32_t l = 0; l < levels; ++l) batch.Delete(db_->levels(), LevelKey(key, l));
    if (!old.ok()) continue;
    --delta.objects;
    delta.charge -= static_cast<int64_t>(Charge(*old));
    delta.bytes -= static_cast<int64_t>(old->bytes());
  }
  if (batch.Count() == 0) return absl::OkStatus();
  QUIRE_RETURN_IF_ERROR(Commit(batch, /*durable=*/false));
  Apply(delta);
  NoteChurn(static_cast<uint64_t>(-delta.bytes));
  return absl::OkStatus();
}

absl::Status DiskTier::VisitRecords(
    absl::FunctionRef<void(const ObjectName& name, const ObjectRecord& record)> visit,
    absl::FunctionRef<void(std::string key)> damaged) {
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  options.readahead_size = 2 << 20;
  std::unique_ptr<rocksdb::Iterator> it(db_->db().NewIterator(options, db_->entries()));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    std::optional<ObjectName> name = ObjectName::Decode(FromSlice(it->key()));
    absl::StatusOr<ObjectRecord> record = ObjectRecord::Parse(FromSlice(it->value()));
    if (name && record.ok()) {
      visit(*name, *record);
    } else {
      damaged(it->key().ToString());
    }
  }
  return FromRocks(it->status(), "reading the records of the disk tier");
}

absl::Status DiskTier::Scan(absl::FunctionRef<void(const ObjectName&, const ObjectRecord&)> visit) {
  QUIRE_RETURN_IF_ERROR(EnsureWritable());
  absl::ReaderMutexLock lock(&db_mu_);
  if (db_ == nullptr) return absl::UnavailableError("the disk tier is closed after an error");
  std::vector<std::string> damaged;
  QUIRE_RETURN_IF_ERROR(VisitRecords(visit, [&](std::string key) { damaged.push_back(std::move(key)); }));
  if (damaged.empty()) return absl::OkStatus();
  spdlog::warn("disk tier: {} records do not parse; their objects are removed", damaged.size());
  damaged_ += damaged.size();
  return RemoveDamaged(damaged);
}

absl::Status DiskTier::RemoveDamaged(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) {
    rocksdb::WriteBatch batch;
    batch.Delete(db_->entries(), key);
    if (std::optional<ObjectName> name = ObjectName::Decode(AsBytes(key))) {
      std::lock_guard stripe(StripeOf(*name).mu);
      if (Stored(key).ok()) continue;  // written anew since
      for (uint32_t l = 0; l < kMaxLevels; ++l) batch.Delete(db_->levels(), LevelKey(key, l));
      QUIRE_RETURN_IF_ERROR(Commit(batch, /*durable=*/false));
    } else {
      QUIRE_RETURN_IF_ERROR(Commit(batch, /*durable=*/false));
    }
  }
  return absl::OkStatus();
}

absl::Status DiskTier::Flush() {
  QUIRE_RETURN_IF_ERROR(EnsureWritable());
  absl::ReaderMutexLock lock(&db_mu_);
  if (db_ == nullptr) return absl::UnavailableError("the disk tier is closed after an error");
  if (options_.sync != DiskSync::kNone)
    return FromRocks(db_->db().FlushWAL(/*sync=*/true), "making the disk tier's log durable");
  return FromRocks(db_->db().Flush({}, {db_->entries(), db_->levels()}), "flushing the disk tier");
}

DiskTier::Figures DiskTier::figures() {
  Figures f;
  f.objects = objects_;
  f.damaged_records = damaged_;
  f.recoveries = recoveries_;
  f.user_bytes = user_bytes_;
  const rocksdb::Statistics& s = *events_->statistics;
  f.log_bytes = s.getTickerCount(rocksdb::WAL_FILE_BYTES);
  f.flushed_bytes = s.getTickerCount(rocksdb::FLUSH_WRITE_BYTES);
  f.compacted_bytes = s.getTickerCount(rocksdb::COMPACT_WRITE_BYTES);
  absl::ReaderMutexLock lock(&db_mu_);
  if (db_ == nullptr) return f;
  db_->db().GetIntProperty(db_->levels(), rocksdb::DB::Properties::kTotalBlobFileSize, &f.blob_bytes);
  db_->db().GetIntProperty(db_->levels(), rocksdb::DB::Properties::kLiveBlobFileGarbageSize,
                           &f.garbage_bytes);
  return f;
}

}  // namespace quire::store

#include "services/store/disk/database.h"

#include <fcntl.h>
#include <rocksdb/cache.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/store/disk/disk_tier.h"
#include "services/store/disk/faulty_files.h"

namespace quire::store {
namespace {

constexpr std::string_view kFormatKey = "quire.disk.format";
constexpr std::string_view kFormat = "1";
constexpr const char* kEntries = "entries";
constexpr const char* kLevels = "levels";
constexpr uint64_t kEntryBufferBytes = 8 << 20;

rocksdb::DBOptions DatabaseOptions(const DiskTierOptions& options, bool direct_io) {
  rocksdb::DBOptions db;
  db.create_if_missing = true;
  db.create_missing_column_families = true;
  db.paranoid_checks = true;
  db.use_direct_reads = direct_io;
  db.use_direct_io_for_flush_and_compaction = direct_io;
  db.advise_random_on_open =
      false;  // objects are long runs of bytes: read-ahead helps where pages are cached
  db.bytes_per_sync = 1 << 20;
  db.wal_bytes_per_sync = options.sync == DiskSync::kSync ? 0 : 1 << 20;
  db.max_total_wal_size = 4 * options.write_buffer_bytes;
  // Batches are as large as objects: with RocksDB's 1 MiB none would share its sync with another.
  db.max_write_batch_group_size_bytes = 64 << 20;
  // Without a log, the families must be flushed together for a record never to be there without its levels.
  db.atomic_flush = options.sync == DiskSync::kNone;
  db.enable_pipelined_write = !db.atomic_flush;
  db.max_open_files = options.max_open_files;
  db.max_background_jobs = 4;
  db.stats_dump_period_sec = 0;
  db.stats_persist_period_sec = 0;
  db.info_log_level = rocksdb::WARN_LEVEL;
  db.max_log_file_size = 1 << 20;
  db.keep_log_file_num = 4;
  db.max_manifest_file_size = 16 << 20;
  return db;
}

// What both families have in common: bloom filters, since most names asked for before a write are new.
rocksdb::ColumnFamilyOptions FamilyOptions(const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache;
  table.cache_index_and_filter_blocks = true;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.format_version = 5;
  table.checksum = rocksdb::kXXH3;
  rocksdb::ColumnFamilyOptions family;
  family.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  family.compression = rocksdb::kNoCompression;
  family.bottommost_compression = rocksdb::kNoCompression;
  family.level_compaction_dynamic_level_bytes = true;
  return family;
}

rocksdb::ColumnFamilyOptions EntryOptions(const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::ColumnFamilyOptions family = FamilyOptions(cache);
  family.write_buffer_size = kEntryBufferBytes;
  family.max_write_buffer_number = 2;
  return family;
}

// Tables of this family hold only pointers into blob files, some 100 bytes a level: an object's levels are
// neighbours in key order and so in their file, which a read of all of them takes at once. Blob files are
// rewritten only when the tier asks (garbage.cc): RocksDB's own rule would rewrite a share of all files with
// every compaction, because keys are digests and every compaction meets all.
rocksdb::ColumnFamilyOptions LevelOptions(const DiskTierOptions& options,
                                          const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::ColumnFamilyOptions family = FamilyOptions(cache);
  family.write_buffer_size = options.write_buffer_bytes;
  family.max_write_buffer_number = 3;
  family.enable_blob_files = true;
  family.min_blob_size = 512;
  family.blob_file_size = 256 << 20;
  family.blob_compression_type = rocksdb::kNoCompression;
  family.enable_blob_garbage_collection = false;
  family.blob_compaction_readahead_size = 4 << 20;
  family.level0_file_num_compaction_trigger = 8;
  family.level0_slowdown_writes_trigger = 32;
  family.level0_stop_writes_trigger = 48;
  return family;
}

bool IsLocked(const rocksdb::Status& status) {
  std::string_view text = status.getState() == nullptr ? "" : status.getState();
  return status.IsIOError() && (text.find("lock") != text.npos || text.find("LOCK") != text.npos);
}

// The families of a database that is there already must be ours.
absl::Status CheckFamilies(const DiskTierOptions& options, const rocksdb::DBOptions& db) {
  std::error_code ignored;
  if (!std::filesystem::exists(std::filesystem::path(options.folder) / "CURRENT", ignored))
    return absl::OkStatus();
  std::vector<std::string> names;
  if (rocksdb::Status s = rocksdb::DB::ListColumnFamilies(db, options.folder, &names); !s.ok())
    return FromRocks(s, absl::StrCat("reading the disk folder ", options.folder));
  for (const std::string& name : names) {
    if (name == rocksdb::kDefaultColumnFamilyName || name == kEntries || name == kLevels) continue;
    return absl::FailedPreconditionError(absl::StrCat("disk folder ", options.folder,
                                                      " holds a database that is no store of this version (",
                                                      name, " is unknown); give another folder"));
  }
  return absl::OkStatus();
}

}  // namespace

void DatabaseEvents::OnBackgroundError(rocksdb::BackgroundErrorReason, rocksdb::Status* error) {
  spdlog::error("disk tier stopped writing: {}", error->ToString());
  stopped_.store(true, std::memory_order_release);
}

void DatabaseEvents::OnErrorRecoveryEnd(const rocksdb::BackgroundErrorRecoveryInfo& info) {
  if (info.new_bg_error.ok()) SetRunning();
}

absl::Status FromRocks(const rocksdb::Status& status, std::string_view what) {
  if (status.ok()) return absl::OkStatus();
  std::string text = absl::StrCat(std::string(what), ": ", status.ToString());
  if (status.IsNotFound()) return absl::NotFoundError(text);
  if (status.IsNoSpace() || status.subcode() == rocksdb::Status::kSpaceLimit)
    return absl::ResourceExhaustedError(text);
  if (status.IsCorruption()) return absl::DataLossError(text);
  return absl::UnavailableError(text);
}

bool TakesDirectIo(const std::string& folder) {
  constexpr size_t kPage = 4096;
  std::string path = absl::StrCat(folder, "/direct-io-probe-", getpid());
  int fd = open(path.c_str(), O_CREAT | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);
  if (fd < 0) {
    unlink(path.c_str());  // some file systems make the file, then refuse
    return false;
  }
  void* page = std::aligned_alloc(kPage, kPage);
  bool taken = page != nullptr;
  if (taken) {
    std::fill_n(static_cast<char*>(page), kPage, 0);
    taken = pwrite(fd, page, kPage, 0) == static_cast<ssize_t>(kPage) &&
            pread(fd, page, kPage, 0) == static_cast<ssize_t>(kPage);
  }
  std::free(page);
  close(fd);
  unlink(path.c_str());
  return taken;
}

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const DiskTierOptions& options, bool direct_io,
                                                         const std::shared_ptr<DatabaseEvents>& events,
                                                         const std::shared_ptr<FaultPoints>& faults) {
  std::unique_ptr<Database> out(new Database);
  rocksdb::DBOptions db = DatabaseOptions(options, direct_io);
  db.statistics = events->statistics;
  db.listeners.push_back(events);
  if (faults != nullptr && FaultPoints::kBuiltIn) {
    out->env_ = FaultyEnv(faults);
    db.env = out->env_.get();
  }
  if (absl::Status status = CheckFamilies(options, db); !status.ok()) return status;

  std::shared_ptr<rocksdb::Cache> cache = rocksdb::NewLRUCache(options.block_cache_bytes);
  std::vector<rocksdb::ColumnFamilyDescriptor> families = {
      {rocksdb::kDefaultColumnFamilyName, FamilyOptions(cache)},
      {kEntries, EntryOptions(cache)},
      {kLevels, LevelOptions(options, cache)}};
  rocksdb::DB* opened = nullptr;
  rocksdb::Status s = rocksdb::DB::Open(db, options.folder, families, &out->handles_, &opened);
  if (IsLocked(s)) {
    return absl::FailedPreconditionError(
        absl::StrCat("disk folder ", options.folder, " is in use by another store"));
  }
  if (!s.ok()) return FromRocks(s, absl::StrCat("opening the disk folder ", options.folder));
  out->db_.reset(opened);
  if (absl::Status status = out->CheckFormat(options.folder); !status.ok()) return status;
  return out;
}

absl::Status Database::CheckFormat(const std::string& folder) {
  std::string stored;
  rocksdb::Status s = db_->Get({}, handles_[0], AsSlice(kFormatKey), &stored);
  if (s.IsNotFound()) {
    std::unique_ptr<rocksdb::Iterator> any(db_->NewIterator({}, entries()));
    any->SeekToFirst();
    if (any->Valid()) {
      return absl::FailedPreconditionError(
          absl::StrCat("disk folder ", folder, " holds a database of no known format; give another folder"));
    }
    rocksdb::WriteOptions durable;
    durable.sync = true;
    return FromRocks(db_->Put(durable, handles_[0], AsSlice(kFormatKey), AsSlice(kFormat)),
                     absl::StrCat("preparing the disk folder ", folder));
  }
  if (!s.ok()) return FromRocks(s, absl::StrCat("reading the format of the disk folder ", folder));
  if (stored == kFormat) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("disk folder ", folder, " holds a store of format ",
                                                    stored.substr(0, 16), "; this one knows format ",
                                                    std::string(kFormat), " only: give another folder"));
}

Database::~Database() {
  if (db_ == nullptr) return;
  for (rocksdb::ColumnFamilyHandle* handle : handles_) db_->DestroyColumnFamilyHandle(handle);
  if (rocksdb::Status s = db_->Close(); !s.ok()) spdlog::warn("closing the disk tier: {}", s.ToString());
}

}  // namespace quire::store

// The tier on a disk of its own: RocksDB, whose blob files hold the levels.
//
//   family    key                     value
//   entries   name (80 bytes)         its record; no blobs: a restart reads small values only
//   levels    name, level (81 bytes)  the level's bytes, level 0's beginning with the header, and a
//                                     checksum of key and bytes (XXH3-64 chained over pieces of 32 KiB);
//                                     in a blob file
//   default   "quire.disk.format"     version of this arrangement
//
// A commit is one write batch of its levels and its record, so a half-written object is never seen, whatever
// dies when. Dropping levels deletes their values and rewrites the record in one batch. Codes do not
// compress: nothing is compressed. Levels carry a checksum of ours, checked with every read; RocksDB checks
// its own of tables at start, of the log when it replays it, and of all that it rewrites.
//
// Space. `capacity_bytes` bounds what live objects charge. What was removed stays in blob files until they
// are rewritten, oldest first, once that garbage exceeds `max_garbage` of the live bytes. Writes wait at
// twice that (RESOURCE_EXHAUSTED after ten seconds). So the folder takes at most capacity · (1 + 2 ·
// max_garbage), and beside it four write buffers (files not yet counted, the log) and one round of rewriting,
// a sixteenth of the folder or 1 GiB.
//
// Memory. Write buffers (3 of write_buffer_bytes and 2 of 8 MiB), the block cache, at most max_open_files
// readers (some 10 KiB each), and of each reading thread two copies of the largest object. Opening a tier
// raises glibc's mmap and trim thresholds for the process (32 and 64 MiB), so that those copies are reused.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "services/store/disk/database.h"
#include "services/store/disk/readers.h"
#include "services/store/tier/object_tier.h"

namespace quire::store {

struct DiskTierOptions {
  std::string folder;           // made if absent; must hold nothing else
  uint64_t capacity_bytes = 0;  // at least 1 MiB
  DiskSync sync = DiskSync::kLog;
  bool direct_io = true;  // past the page cache; where the file system refuses, a log line and buffered I/O
  uint64_t write_buffer_bytes = 64 << 20;
  uint64_t block_cache_bytes = 64 << 20;
  int max_open_files = 1024;
  int read_threads = 4;  // of batches, the caller's included; they wait for the disk more than they compute
  double max_garbage = 0.25;            // share of the live bytes
  std::shared_ptr<FaultPoints> faults;  // asked where given
};

// Thread-safe, for all calls of ObjectTier; `visit` of Scan must not call the tier. Of Remove and DropLevels,
// durability comes with the next durable Write or Flush. An object whose Write failed or was not answered may
// be there, whole, after the process died.
class DiskTier : public ObjectTier {
 public:
  struct Figures {
    uint64_t objects = 0;          // live
    uint64_t damaged_records = 0;  // that did not parse, since Open
    uint64_t recoveries = 0;       // times that the database had stopped writing and went on
    uint64_t blob_bytes = 0;       // of blob files
    uint64_t garbage_bytes = 0;    // of those, in no live object, as far as compactions have found
    // Since Open: bytes of objects, records and keys that were written, and what went to the device for them.
    uint64_t user_bytes = 0;
    uint64_t log_bytes = 0;
    uint64_t flushed_bytes = 0;    // tables and blob files from write buffers
    uint64_t compacted_bytes = 0;  // tables and blob files rewritten
  };

  // FAILED_PRECONDITION for a folder that another process holds, that holds another version or no store of
  // ours; DATA_LOSS where RocksDB's own files are damaged; INVALID_ARGUMENT for options out of range;
  // RESOURCE_EXHAUSTED, UNAVAILABLE as the disk says. Objects beyond a smaller capacity than before stay.
  static absl::StatusOr<std::shared_ptr<DiskTier>> Open(const DiskTierOptions& options);
  ~DiskTier() override;

  Tier kind() const override { return Tier::kDisk; }
  bool shared() const override { return false; }
  absl::Status Write(const ObjectName& name, const ObjectRecord& record, Bytes object) override;
  void Read(std::span<ReadRequest> requests) override;
  void Find(std::span<FindRequest> requests) override;
  absl::Status DropLevels(const ObjectName& name, const ObjectRecord& record) override;
  absl::Status Remove(std::span<const ObjectName> names) override;
  absl::Status Scan(absl::FunctionRef<void(const ObjectName&, const ObjectRecord&)> visit) override;
  absl::Status Flush() override;
  uint64_t capacity_bytes() const override { return options_.capacity_bytes; }
  uint64_t used_bytes() const override { return used_.load(std::memory_order_relaxed); }
  uint64_t Charge(const ObjectRecord& record) const override;

  bool direct_io() const { return direct_io_; }
  Figures figures();
  // Writes buffers out and rewrites blob files until garbage is below half of max_garbage; returns when it
  // is. For tests and operators: the tier does so by itself.
  absl::Status CollectGarbage();

 private:
  // Objects and bytes that a change adds, or takes away where negative.
  struct Delta {
    int64_t objects = 0, charge = 0, bytes = 0;
  };
  struct Stripe {
    std::mutex mu;  // held over read-modify-write of a record
  };
  static constexpr size_t kStripes = 64;

  DiskTier(DiskTierOptions options, bool direct_io);

  // A database to write to: recovered first if it had stopped.
  absl::Status EnsureWritable() ABSL_LOCKS_EXCLUDED(db_mu_);
  absl::Status Recover() ABSL_LOCKS_EXCLUDED(db_mu_);
  absl::Status Reopen() ABSL_EXCLUSIVE_LOCKS_REQUIRED(db_mu_);
  absl::Status DeleteDoubtful() ABSL_EXCLUSIVE_LOCKS_REQUIRED(db_mu_);
  // Counts what is stored anew.
  absl::Status CountStored() ABSL_SHARED_LOCKS_REQUIRED(db_mu_);

  // What is stored under a name; nothing: NOT_FOUND; a record that does not parse: DATA_LOSS.
  absl::StatusOr<ObjectRecord> Stored(const std::string& key) ABSL_SHARED_LOCKS_REQUIRED(db_mu_);
  absl::Status Commit(rocksdb::WriteBatch& batch, bool durable) ABSL_SHARED_LOCKS_REQUIRED(db_mu_);
  absl::Status WriteLocked(const ObjectName& name, const ObjectRecord& record, Bytes object)
      ABSL_SHARED_LOCKS_REQUIRED(db_mu_);
  absl::Status RemoveSome(std::span<const ObjectName> sorted) ABSL_SHARED_LOCKS_REQUIRED(db_mu_);
  // Keys of the entries whose records did not parse.
  absl::Status RemoveDamaged(const std::vector<std::string>& keys) ABSL_SHARED_LOCKS_REQUIRED(db_mu_);
  void ReadOne(ReadRequest& request, const rocksdb::Snapshot* snapshot) ABSL_SHARED_LOCKS_REQUIRED(db_mu_);
  // Bytes put into request.out.
  absl::StatusOr<size_t> ReadAtOnce(const ReadRequest& request, const rocksdb::Snapshot* snapshot)
      ABSL_SHARED_LOCKS_REQUIRED(db_mu_);
  absl::StatusOr<size_t> ReadByLevel(const ReadRequest& request, const rocksdb::Snapshot* snapshot)
      ABSL_SHARED_LOCKS_REQUIRED(db_mu_);
  void FindOne(FindRequest& request) ABSL_SHARED_LOCKS_REQUIRED(db_mu_);
  absl::Status VisitRecords(absl::FunctionRef<void(const ObjectName& name, const ObjectRecord& record)> visit,
                            absl::FunctionRef<void(std::string key)> damaged)
      ABSL_SHARED_LOCKS_REQUIRED(db_mu_);

  bool Reserve(int64_t charge);
  void Apply(const Delta& delta);
  Stripe& StripeOf(const ObjectName& name);
  std::vector<std::unique_lock<std::mutex>> LockAll(std::span<const ObjectName> names);

  // Garbage (garbage.cc).
  void CollectInBackground();
  void NoteChurn(uint64_t bytes);
  absl::Status AwaitRoom();
  // Rewrites until garbage is at most `share` of the live bytes and a write buffer.
  absl::Status CollectDownTo(double share) ABSL_SHARED_LOCKS_REQUIRED(db_mu_);
  uint64_t GarbageAllowed(double share) const;
  uint64_t Garbage() ABSL_SHARED_LOCKS_REQUIRED(db_mu_);

  const DiskTierOptions options_;
  const bool direct_io_;
  const std::shared_ptr<FaultPoints> faults_;
  const std::shared_ptr<DatabaseEvents> events_;
  Readers readers_;

  absl::Mutex db_mu_;  // shared by every use of the database; exclusive to replace it
  std::unique_ptr<Database> db_ ABSL_GUARDED_BY(db_mu_);  // null after a reopening that failed
  std::array<Stripe, kStripes> stripes_;

  std::atomic<uint64_t> used_{0}, live_bytes_{0}, objects_{0};
  std::atomic<uint64_t> damaged_{0}, recoveries_{0}, user_bytes_{0};
  std::mutex doubtful_mu_;
  // Names whose last write failed: a log that is replayed may bring them back.
  std::set<ObjectName> doubtful_ ABSL_GUARDED_BY(doubtful_mu_);

  std::mutex churn_mu_;  // guards the four below
  std::condition_variable churn_changed_;
  uint64_t churn_ = 0;       // bytes written and removed since the collector last looked
  bool over_limit_ = false;  // writes wait
  bool stopping_ = false;
  std::atomic<bool> cancel_{false};  // ends a compaction under way
  std::mutex collect_mu_;            // one collection at a time
  std::thread collector_;
};

}  // namespace quire::store

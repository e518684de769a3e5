#include "services/store/disk/garbage.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/disk/disk_tier.h"

namespace quire::store {
namespace {

constexpr uint64_t kLookEvery = 16 << 20;  // bytes of churn between looks at the garbage
constexpr uint64_t kMinRound = 1 << 30;    // bytes of files that one round may rewrite
constexpr int kRoundShare = 16;            // or such a part of all
constexpr std::chrono::seconds kWriteWaits(10);

}  // namespace

size_t FilesToRewrite(std::span<const BlobFile> oldest_first, uint64_t wanted, uint64_t most) {
  uint64_t bytes = 0, freed = 0;
  size_t useful = 0;  // files up to the last that frees something
  for (size_t i = 0; i < oldest_first.size() && freed < wanted; ++i) {
    bytes += oldest_first[i].bytes;
    if (bytes > most && useful > 0) break;
    freed += oldest_first[i].garbage;
    if (oldest_first[i].garbage > 0) useful = i + 1;
  }
  return useful;
}

// The limit of what may be there beside live bytes. What still stands in write buffers is live and in no
// file, so one buffer's worth is not counted as garbage's absence.
uint64_t DiskTier::GarbageAllowed(double share) const {
  return static_cast<uint64_t>(share * static_cast<double>(live_bytes_.load())) + options_.write_buffer_bytes;
}

uint64_t DiskTier::Garbage() {
  uint64_t files = 0;
  db_->db().GetIntProperty(db_->levels(), rocksdb::DB::Properties::kLiveBlobFileSize, &files);
  uint64_t live = live_bytes_.load();
  return files > live ? files - live : 0;
}

absl::Status DiskTier::CollectDownTo(double share) {
  std::lock_guard one(collect_mu_);
  auto compact = [&](rocksdb::BlobGarbageCollectionPolicy policy,
                     double cutoff) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    rocksdb::CompactRangeOptions options;
    options.exclusive_manual_compaction = false;
    options.canceled = &cancel_;
    options.blob_garbage_collection_policy = policy;
    if (policy == rocksdb::BlobGarbageCollectionPolicy::kForce) {
      options.blob_garbage_collection_age_cutoff = cutoff;
      options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
    }
    return FromRocks(db_->db().CompactRange(options, db_->levels(), nullptr, nullptr),
                     "rewriting files of the disk tier");
  };
  // First the pointers alone, some 100 bytes a level: what was removed becomes known as garbage, and files
  // that hold nothing else go.
  QUIRE_RETURN_IF_ERROR(compact(rocksdb::BlobGarbageCollectionPolicy::kDisable, 0));
  uint64_t before = UINT64_MAX;
  for (uint64_t garbage = Garbage(); garbage > GarbageAllowed(share) && garbage < before;
       before = garbage, garbage = Garbage()) {
    rocksdb::ColumnFamilyMetaData meta;
    db_->db().GetColumnFamilyMetaData(db_->levels(), &meta);
    std::sort(meta.blob_files.begin(), meta.blob_files.end(),
              [](const auto& a, const auto& b) { return a.blob_file_number < b.blob_file_number; });
    std::vector<BlobFile> files;
    for (const rocksdb::BlobMetaData& f : meta.blob_files)
      files.push_back({f.blob_file_size, f.garbage_blob_bytes});
    size_t count = FilesToRewrite(files, garbage - GarbageAllowed(share),
                                  std::max(kMinRound, meta.blob_file_size / kRoundShare));
    if (count == 0) break;
    // RocksDB takes floor(cutoff · files), and files may be added meanwhile.
    double cutoff = (static_cast<double>(count) + 0.5) / static_cast<double>(files.size());
    QUIRE_RETURN_IF_ERROR(compact(rocksdb::BlobGarbageCollectionPolicy::kForce, std::min(cutoff, 1.0)));
  }
  return absl::OkStatus();
}

absl::Status DiskTier::CollectGarbage() {
  QUIRE_RETURN_IF_ERROR(EnsureWritable());
  absl::ReaderMutexLock lock(&db_mu_);
  if (db_ == nullptr) return absl::UnavailableError("the disk tier is closed after an error");
  return CollectDownTo(options_.max_garbage / 2);
}

void DiskTier::NoteChurn(uint64_t bytes) {
  std::lock_guard lock(churn_mu_);
  churn_ += bytes;
  if (churn_ >= kLookEvery) churn_changed_.notify_all();
}

absl::Status DiskTier::AwaitRoom() {
  std::unique_lock lock(churn_mu_);
  if (churn_changed_.wait_for(lock, kWriteWaits, [&] { return !over_limit_; })) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("disk tier: files are being rewritten to free the room of removed objects; more than ",
                   2 * options_.max_garbage, " of the live bytes are not yet free"));
}

void DiskTier::CollectInBackground() {
  std::unique_lock lock(churn_mu_);
  while (true) {
    churn_changed_.wait(lock, [&] { return stopping_ || churn_ >= kLookEvery; });
    if (stopping_) return;
    churn_ = 0;
    lock.unlock();
    bool over = false;
    absl::Status status;
    {
      absl::ReaderMutexLock use(&db_mu_);
      if (db_ != nullptr && !events_->stopped()) {
        uint64_t garbage = Garbage();
        over = garbage > GarbageAllowed(2 * options_.max_garbage);
        if (over) {
          std::lock_guard set(churn_mu_);
          over_limit_ = true;
        }
        if (garbage > GarbageAllowed(options_.max_garbage)) status = CollectDownTo(options_.max_garbage / 2);
      }
    }
    if (!status.ok() && !cancel_) spdlog::warn("disk tier: {}", status.ToString());
    lock.lock();
    over_limit_ = false;
    if (over) churn_changed_.notify_all();
  }
}

}  // namespace quire::store

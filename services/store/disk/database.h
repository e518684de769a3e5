// RocksDB as the disk tier uses it: its options, its two column families, its errors as statuses.
#pragma once

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/listener.h>
#include <rocksdb/statistics.h>

#include <atomic>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/bytes.h"
#include "services/store/tier/faults.h"

namespace quire::store {

// What an acknowledged write survives.
enum class DiskSync : uint8_t {
  kNone,  // no log: a crash loses what still stood in write buffers; half of kLog's writing
  kLog,   // a log in the page cache: it survives the process
  kSync,  // the log is on the device before the answer; concurrent writes share one sync
};

struct DiskTierOptions;

// What a database says of itself while it runs; outlives each.
class DatabaseEvents : public rocksdb::EventListener {
 public:
  const std::shared_ptr<rocksdb::Statistics> statistics = rocksdb::CreateDBStatistics();
  // It has stopped writing after an error, and not gone on by itself.
  bool stopped() const { return stopped_.load(std::memory_order_acquire); }
  void SetRunning() { stopped_.store(false, std::memory_order_release); }

  void OnBackgroundError(rocksdb::BackgroundErrorReason reason, rocksdb::Status* error) override;
  void OnErrorRecoveryEnd(const rocksdb::BackgroundErrorRecoveryInfo& info) override;

 private:
  std::atomic<bool> stopped_{false};
};

class Database {
 public:
  // As DiskTier::Open.
  static absl::StatusOr<std::unique_ptr<Database>> Open(const DiskTierOptions& options, bool direct_io,
                                                        const std::shared_ptr<DatabaseEvents>& events,
                                                        const std::shared_ptr<FaultPoints>& faults);
  ~Database();

  rocksdb::DB& db() { return *db_; }
  rocksdb::ColumnFamilyHandle* entries() { return handles_[1]; }
  rocksdb::ColumnFamilyHandle* levels() { return handles_[2]; }

 private:
  Database() = default;
  absl::Status CheckFormat(const std::string& folder);

  std::unique_ptr<rocksdb::Env> env_;  // where faults are injected; outlives db_
  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*> handles_;  // default, entries, levels; owned
};

// NOT_FOUND, DATA_LOSS (corruption), RESOURCE_EXHAUSTED (no space on the device), else UNAVAILABLE.
absl::Status FromRocks(const rocksdb::Status& status, std::string_view what);
// Whether files in `folder` can be opened past the page cache.
bool TakesDirectIo(const std::string& folder);

inline rocksdb::Slice AsSlice(std::string_view s) { return {s.data(), s.size()}; }
inline rocksdb::Slice AsSlice(Bytes b) { return AsSlice(AsString(b)); }
inline Bytes FromSlice(const rocksdb::Slice& s) {
  return {reinterpret_cast<const uint8_t*>(s.data()), s.size()};
}

}  // namespace quire::store

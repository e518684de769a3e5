// Reading of the disk tier: levels and records.
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/disk/disk_tier.h"
#include "services/store/disk/levels.h"

namespace quire::store {
namespace {

rocksdb::ReadOptions LevelReads(const rocksdb::Snapshot* snapshot) {
  rocksdb::ReadOptions options;
  options.snapshot = snapshot;
  options.verify_checksums = false;  // a table-driven CRC32 in Debian's build; the levels have their own
  return options;
}

}  // namespace

void DiskTier::Read(std::span<ReadRequest> requests) {
  faults_->DelayHere(Fault::kSlowTier);
  absl::ReaderMutexLock lock(&db_mu_);
  if (db_ == nullptr) {
    for (ReadRequest& r : requests)
      r.status = absl::UnavailableError("the disk tier is closed after an error");
    return;
  }
  // Levels of an object that is being replaced must come from one of the two.
  rocksdb::ManagedSnapshot snapshot(&db_->db());
  readers_.Run(requests.size(),
               [&](size_t i) ABSL_NO_THREAD_SAFETY_ANALYSIS { ReadOne(requests[i], snapshot.snapshot()); });
}

void DiskTier::ReadOne(ReadRequest& request, const rocksdb::Snapshot* snapshot) {
  if (request.levels < 1 || request.levels > kMaxLevels) {
    request.status = absl::InvalidArgumentError(
        absl::StrCat("a read of ", request.levels, " levels; 1 to ", kMaxLevels, " are possible"));
    return;
  }
  if (faults_->Take(Fault::kDiskReadError)) {
    request.status = absl::UnavailableError("injected: disk read error");
    return;
  }
  absl::StatusOr<size_t> bytes = direct_io_ ? ReadAtOnce(request, snapshot) : ReadByLevel(request, snapshot);
  request.status = bytes.status();
  if (!bytes.ok()) return;
  if (*bytes != request.out.size()) {
    request.status =
        absl::NotFoundError(absl::StrCat("the disk tier's object has ", *bytes, " bytes in ", request.levels,
                                         " levels; asked for were ", request.out.size()));
    return;
  }
  if (auto at = faults_->TakeParameter(Fault::kCorruptByte)) request.out[*at % *bytes] ^= 0x10;
}

// All levels by one request to the device: RocksDB joins direct reads of neighbours.
absl::StatusOr<size_t> DiskTier::ReadAtOnce(const ReadRequest& request, const rocksdb::Snapshot* snapshot) {
  auto levels = static_cast<size_t>(request.levels);
  std::string key = request.name.Encode();
  std::array<std::string, kMaxLevels> keys;
  std::array<rocksdb::Slice, kMaxLevels> slices;
  std::array<rocksdb::PinnableSlice, kMaxLevels> values;
  std::array<rocksdb::Status, kMaxLevels> statuses;
  for (size_t l = 0; l < levels; ++l) {
    keys[l] = LevelKey(key, static_cast<uint32_t>(l));
    slices[l] = keys[l];
  }
  db_->db().MultiGet(LevelReads(snapshot), db_->levels(), levels, slices.data(), values.data(),
                     statuses.data(), /*sorted_input=*/true);
  size_t bytes = 0;
  for (size_t l = 0; l < levels; ++l) {
    QUIRE_RETURN_IF_ERROR(
        FromRocks(statuses[l], absl::StrCat("level ", l, " of an object of the disk tier")));
    QUIRE_ASSIGN_OR_RETURN(size_t took, TakeLevel(keys[l], FromSlice(values[l]), request.out.subspan(bytes)));
    bytes += took;
  }
  return bytes;
}

// From the page cache a level at a time is faster: its copies stay in the processor's cache.
absl::StatusOr<size_t> DiskTier::ReadByLevel(const ReadRequest& request, const rocksdb::Snapshot* snapshot) {
  std::string name = request.name.Encode();
  size_t bytes = 0;
  for (int l = 0; l < request.levels; ++l) {
    std::string key = LevelKey(name, static_cast<uint32_t>(l));
    rocksdb::PinnableSlice value;
    QUIRE_RETURN_IF_ERROR(FromRocks(db_->db().Get(LevelReads(snapshot), db_->levels(), key, &value),
                                    absl::StrCat("level ", l, " of an object of the disk tier")));
    QUIRE_ASSIGN_OR_RETURN(size_t took, TakeLevel(key, FromSlice(value), request.out.subspan(bytes)));
    bytes += took;
  }
  return bytes;
}

void DiskTier::Find(std::span<FindRequest> requests) {
  faults_->DelayHere(Fault::kSlowTier);
  absl::ReaderMutexLock lock(&db_mu_);
  for (FindRequest& r : requests) {
    r.found.clear();
    if (db_ == nullptr) {
      r.status = absl::UnavailableError("the disk tier is closed after an error");
    } else {
      FindOne(r);
    }
  }
}

void DiskTier::FindOne(FindRequest& request) {
  std::string prefix = ObjectName::Prefix(request.tenant, request.key);
  std::unique_ptr<rocksdb::Iterator> it(db_->db().NewIterator({}, db_->entries()));
  for (it->Seek(prefix); it->Valid() && it->key().starts_with(prefix); it->Next()) {
    std::optional<ObjectName> name = ObjectName::Decode(FromSlice(it->key()));
    absl::StatusOr<ObjectRecord> record = ObjectRecord::Parse(FromSlice(it->value()));
    if (name && record.ok()) request.found.emplace_back(name->part, *std::move(record));
  }
  request.status = FromRocks(it->status(), "finding a block in the disk tier");
}

}  // namespace quire::store

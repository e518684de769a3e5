// A tier in memory behind the interface of those that outlive the process, so that one conformance suite runs
// on all: names, records and their atomicity are kept here; room, bytes and charges are the tier's.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/engine/tier.h"
#include "services/store/tier/object_tier.h"

namespace quire::store {

class ArenaAsTier : public ObjectTier {
 public:
  explicit ArenaAsTier(std::shared_ptr<StorageTier> arena) : arena_(std::move(arena)) {}

  Tier kind() const override { return arena_->kind(); }
  bool shared() const override { return false; }
  absl::Status Write(const ObjectName& name, const ObjectRecord& record, Bytes object) override {
    QUIRE_RETURN_IF_ERROR(record.Validate());
    if (object.size() != record.bytes())
      return absl::InvalidArgumentError(absl::StrCat("an object of ", object.size(), " bytes"));
    absl::StatusOr<std::shared_ptr<TierObject>> room = arena_->Stage(object.size());
    if (!room.ok()) return Overwrite(name, record, object, room.status());
    QUIRE_RETURN_IF_ERROR(Fill(**room, object));
    (*room)->Seal();
    Entry entry{record, *std::move(room)};
    std::lock_guard lock(mu_);
    std::swap(entries_[name], entry);
    return absl::OkStatus();
  }
  void Read(std::span<ReadRequest> requests) override {
    for (ReadRequest& request : requests) request.status = ReadOne(request);
  }
  void Find(std::span<FindRequest> requests) override {
    std::lock_guard lock(mu_);
    for (FindRequest& request : requests) {
      request.status = absl::OkStatus();
      request.found.clear();
      for (const auto& [name, entry] : entries_) {
        if (name.tenant == request.tenant && name.key == request.key)
          request.found.emplace_back(name.part, entry.record);
      }
    }
  }
  absl::Status DropLevels(const ObjectName& name, const ObjectRecord& record) override {
    std::lock_guard lock(mu_);
    auto it = entries_.find(name);
    if (it == entries_.end()) return absl::NotFoundError("no such object");
    const ObjectRecord& stored = it->second.record;
    if (!record.Validate().ok() || record.levels > stored.levels || record.ends != stored.ends ||
        record.header_bytes != stored.header_bytes)
      return absl::InvalidArgumentError("not of this object");
    it->second.room->Shrink(record.bytes());
    it->second.record = record;
    return absl::OkStatus();
  }
  absl::Status Remove(std::span<const ObjectName> names) override {
    std::lock_guard lock(mu_);
    for (const ObjectName& name : names) entries_.erase(name);
    return absl::OkStatus();
  }
  absl::Status Scan(absl::FunctionRef<void(const ObjectName&, const ObjectRecord&)> visit) override {
    std::lock_guard lock(mu_);
    for (const auto& [name, entry] : entries_) visit(name, entry.record);
    return absl::OkStatus();
  }
  absl::Status Flush() override { return absl::OkStatus(); }
  uint64_t capacity_bytes() const override { return arena_->capacity_bytes(); }
  uint64_t used_bytes() const override { return arena_->used_bytes(); }
  uint64_t Charge(const ObjectRecord& record) const override {
    return (record.bytes() + 31) / 32 * 32 + 32;  // as engine/allocator.h says
  }

 private:
  struct Entry {
    ObjectRecord record;
    std::shared_ptr<TierObject> room;
  };
  static absl::Status Fill(TierObject& room, Bytes object) {
    uint64_t half = object.size() / 2;  // as a put's chunks come
    QUIRE_RETURN_IF_ERROR(room.Write(0, object.first(half)));
    return room.Write(half, object.subspan(half));
  }
  // Where there is no other room: what replaces an object no smaller takes its place.
  absl::Status Overwrite(const ObjectName& name, const ObjectRecord& record, Bytes object,
                         const absl::Status& full) {
    std::lock_guard lock(mu_);  // so nobody reads it
    auto it = entries_.find(name);
    if (it == entries_.end() || it->second.room->bytes() < object.size()) return full;
    QUIRE_RETURN_IF_ERROR(Fill(*it->second.room, object));
    if (it->second.room->bytes() > object.size()) it->second.room->Shrink(object.size());
    it->second.record = record;
    return absl::OkStatus();
  }
  absl::Status ReadOne(ReadRequest& request) {
    std::lock_guard lock(mu_);  // Shrink may not meet a reader
    auto it = entries_.find(request.name);
    if (it == entries_.end()) return absl::NotFoundError("no such object");
    const ObjectRecord& record = it->second.record;
    if (request.levels < 1 || request.levels > kMaxLevels)
      return absl::InvalidArgumentError(absl::StrCat(request.levels, " levels"));
    if (request.levels > static_cast<int>(record.levels) ||
        request.out.size() != record.ends[static_cast<size_t>(request.levels) - 1])
      return absl::NotFoundError("not what is stored");
    QUIRE_ASSIGN_OR_RETURN(PinnedBytes pinned, it->second.room->Read());
    std::copy_n(pinned.bytes.begin(), request.out.size(), request.out.begin());
    return absl::OkStatus();
  }

  std::shared_ptr<StorageTier> arena_;
  std::mutex mu_;  // guards entries_
  std::map<ObjectName, Entry> entries_;
};

}  // namespace quire::store

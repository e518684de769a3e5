// The reading half of RedisTier: Find, Read, and what both do about wrong and incomplete objects.
#include <optional>

#include "absl/strings/str_cat.h"
#include "services/store/redis/outcomes.h"
#include "services/store/redis/redis_tier.h"
#include "services/store/redis/slots.h"

namespace quire::store {

using redis::LevelExtent;
using redis::Outcome;
using redis::Reply;
using redis::Request;
using redis::StoredRecord;

// `raw` of each place: its record as it is now, "" if there is none. Statuses are the commands'. Returns the
// first failure, for those to whom one is as bad as all.
absl::Status RedisTier::FetchRecords(std::span<Found> places, std::span<absl::Status> statuses) {
  std::vector<Request> requests;
  for (const Found& found : places)
    requests.push_back(Single(found.place, {"HGET", found.place.hash_key, found.place.field}));
  Execute(requests);
  absl::Status first;
  for (size_t i = 0; i < places.size(); ++i) {
    Reply& reply = requests[i].reply;
    absl::Status status = Outcome(requests[i]);
    places[i].raw.clear();
    if (status.ok() && reply.is(Reply::Type::kString)) places[i].raw = std::move(reply.text);
    if (status.ok() && !reply.is(Reply::Type::kString) && !reply.is(Reply::Type::kNil))
      status = redis::Unexpected("a record", reply);
    first.Update(status);
    if (!statuses.empty()) statuses[i] = status;
  }
  return first;
}

void RedisTier::Read(std::span<ReadRequest> requests) {
  std::vector<Found> found;
  for (const ReadRequest& request : requests) found.push_back({PlaceOf(request.name), ""});
  std::vector<absl::Status> statuses(requests.size());
  FetchRecords(found, statuses).IgnoreError();  // each request has its own

  std::vector<std::optional<StoredRecord>> stored(requests.size());
  std::vector<ObjectName> gone;
  for (size_t i = 0; i < requests.size(); ++i) {
    ReadRequest& request = requests[i];
    request.status = statuses[i];
    if (request.levels < 1 || request.levels > static_cast<int>(kMaxLevels)) {
      request.status = absl::InvalidArgumentError(
          absl::StrCat(request.levels, " levels are asked for; objects have 1 to ", kMaxLevels));
    }
    if (!request.status.ok()) continue;
    if (found[i].raw.empty()) {
      request.status = absl::NotFoundError("redis has no such object");
      gone.push_back(request.name);
      continue;
    }
    absl::StatusOr<StoredRecord> parsed = StoredRecord::Parse(seal_, request.name, AsBytes(found[i].raw));
    if (!parsed.ok()) {
      // A record that a newer store wrote is not ours to judge.
      request.status = absl::IsUnimplemented(parsed.status()) ? absl::NotFoundError(parsed.status().message())
                                                              : parsed.status();
      if (absl::IsDataLoss(request.status)) ++wrong_records_;
      continue;
    }
    const ObjectRecord& record = parsed->record;
    bool fits = static_cast<uint32_t>(request.levels) <= record.levels &&
                request.out.size() == record.ends[static_cast<size_t>(request.levels) - 1];
    if (!fits) {
      request.status = absl::NotFoundError(absl::StrCat(
          "redis holds another object of that name now: ", record.levels, " levels, ", record.bytes(),
          " bytes; ", request.levels, " levels, ", request.out.size(), " bytes are wanted"));
      continue;
    }
    stored[i] = *std::move(parsed);
  }
  ReadLevels(requests, found, stored, gone);
  ForgetIfGone(gone);
}

// For the requests that have a stored record: their levels, straight into the callers' buffers.
void RedisTier::ReadLevels(std::span<ReadRequest> requests, std::span<const Found> found,
                           const std::vector<std::optional<StoredRecord>>& stored,
                           std::vector<ObjectName>& gone) {
  std::vector<Request> gets;
  std::vector<size_t> owner;  // of each get
  for (size_t i = 0; i < requests.size(); ++i) {
    if (!stored[i]) continue;
    for (uint32_t level = 0; level < static_cast<uint32_t>(requests[i].levels); ++level) {
      Extent extent = LevelExtent(stored[i]->record, level);
      gets.push_back(Single(found[i].place, {"GET", LevelKey(found[i].place, stored[i]->generation, level)}));
      gets.back().into = requests[i].out.subspan(extent.offset, extent.length);
      owner.push_back(i);
    }
  }
  Execute(gets);
  std::vector<Found> incomplete;
  for (size_t g = 0; g < gets.size(); ++g) {
    absl::Status& status = requests[owner[g]].status;
    if (!status.ok()) continue;
    status = Outcome(gets[g]);
    const Reply& reply = gets[g].reply;
    if (!status.ok() || reply.is(Reply::Type::kPlaced)) continue;
    if (reply.is(Reply::Type::kNil)) {
      status = absl::NotFoundError("redis has the object's record, but not all of its levels");
      incomplete.push_back(found[owner[g]]);
    } else if (reply.is(Reply::Type::kMisfit)) {
      status = absl::DataLossError(absl::StrCat("redis holds a level of ", reply.integer, " bytes where ",
                                                gets[g].into.size(), " were written"));
    } else {
      status = redis::Unexpected("a level", reply);
    }
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    if (stored[i] && requests[i].status.ok()) VerifyLevels(requests[i], *stored[i]);
  }
  if (incomplete.empty()) return;
  incomplete_ += incomplete.size();
  for (const Found& object : incomplete) gone.push_back(object.place.name);
  Discard(incomplete).IgnoreError();  // else the next reader does it
}

// Of objects that this process wrote and that expired, were evicted or removed by another.
void RedisTier::ForgetIfGone(std::span<const ObjectName> names) {
  std::vector<ObjectName> ours;
  for (const ObjectName& name : names) {
    if (ledger_.Holds(name)) ours.push_back(name);
  }
  if (ours.empty()) return;
  NameLocks locks(*this, ours);  // else one could be written between the question and the answer
  std::vector<Found> found;
  for (const ObjectName& name : ours) found.push_back({PlaceOf(name), ""});
  std::vector<absl::Status> statuses(found.size());
  FetchRecords(found, statuses).IgnoreError();
  for (size_t i = 0; i < found.size(); ++i) {
    if (statuses[i].ok() && found[i].raw.empty()) ledger_.Forget(ours[i]);
  }
}

void RedisTier::VerifyLevels(ReadRequest& request, const StoredRecord& stored) {
  if (faults_ != nullptr) {
    if (std::optional<uint64_t> at = faults_->TakeParameter(Fault::kCorruptByte))
      request.out[*at % request.out.size()] ^= 0x40;
  }
  if (!seal_) return;
  for (uint32_t level = 0; level < static_cast<uint32_t>(request.levels); ++level) {
    Extent extent = LevelExtent(stored.record, level);
    redis::Seal::Code code = seal_.OfLevel(request.name, stored.generation, level,
                                           request.out.subspan(extent.offset, extent.length));
    if (redis::Seal::Equal(code, stored.level_codes[level])) continue;
    request.status = absl::DataLossError(absl::StrCat("the HMAC of level ", level, " in redis is wrong"));
    return;
  }
}

void RedisTier::Find(std::span<FindRequest> requests) {
  std::vector<std::string> keys;
  std::vector<Request> batch(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    keys.push_back(HashKey(requests[i].tenant, requests[i].key));
    batch[i].command = redis::Command({"HGETALL", keys[i]});
    batch[i].slot = redis::KeySlot(keys[i]);
  }
  Execute(batch);
  std::vector<Found> wrong;
  for (size_t i = 0; i < requests.size(); ++i) {
    FindRequest& request = requests[i];
    request.found.clear();
    request.status = Outcome(batch[i]);
    std::vector<Reply>& pairs = batch[i].reply.elements;
    if (!request.status.ok()) continue;
    if (!batch[i].reply.is(Reply::Type::kArray) || pairs.size() % 2 != 0) {
      request.status = redis::Unexpected("a block's records", batch[i].reply);
      continue;
    }
    std::string prefix = ObjectName::Prefix(request.tenant, request.key);
    for (size_t p = 0; p < pairs.size(); p += 2) {
      std::optional<ObjectName> name = ObjectName::Decode(AsBytes(prefix + pairs[p].text));
      absl::StatusOr<StoredRecord> stored =
          name ? StoredRecord::Parse(seal_, *name, AsBytes(pairs[p + 1].text))
               : absl::DataLossError("a field of a redis block is no part");
      if (stored.ok()) {
        request.found.emplace_back(name->part, std::move(stored->record));
      } else if (absl::IsDataLoss(stored.status())) {
        Place place{name.value_or(ObjectName{request.tenant, request.key, {}}), keys[i], pairs[p].text,
                    batch[i].slot};
        wrong.push_back({std::move(place), std::move(pairs[p + 1].text)});
        request.status = stored.status();
      }
    }
    // Something is wrong, but the block can be served all the same.
    if (!request.found.empty()) request.status = absl::OkStatus();
  }
  if (wrong.empty()) return;
  wrong_records_ += wrong.size();
  Discard(wrong).IgnoreError();
}

}  // namespace quire::store

#include "services/store/redis/redis_tier.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <random>
#include <set>
#include <thread>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "services/store/redis/outcomes.h"
#include "services/store/redis/slots.h"

namespace quire::store {
namespace {

using redis::FirstFailure;
using redis::LevelExtent;
using redis::NowMs;
using redis::Outcome;
using redis::Reply;
using redis::Request;
using redis::StoredRecord;

constexpr int kFormat = 1;
// What keys, Redis' own entries and rounding take beside the values, roughly.
constexpr uint64_t kRecordCharge = 768, kLevelCharge = 320;
// Rounds in which an object may change under a call before it gives up.
constexpr int kRounds = 8;

// Sets a field and the hash's time to live (0: none), which must be that of the part that lives longest.
// Answers with what the field held.
constexpr std::string_view kSetRecord = R"lua(
local before = redis.call('PTTL', KEYS[1])
local old = redis.call('HGET', KEYS[1], ARGV[1])
local ttl = tonumber(ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if ttl == 0 then
  if before >= 0 then redis.call('PERSIST', KEYS[1]) end
elseif before == -2 or (before >= 0 and before < ttl) then
  redis.call('PEXPIRE', KEYS[1], ttl)
end
return old
)lua";
// Sets a field if it still holds what the caller saw; 1 if so. A full server stops a script before its first
// write only, and HDEL, even of nothing, is none that it refuses: so a full server lets objects shrink.
constexpr std::string_view kReplaceRecord = R"lua(
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], '')
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
)lua";
// Removes a field if it still holds what the caller saw. Its first ten bytes are version, flags and
// generation: one that only differs behind them has the same levels.
constexpr std::string_view kRemoveRecord = R"lua(
local now = redis.call('HGET', KEYS[1], ARGV[1])
if now == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end
if now and string.sub(now, 1, 10) == string.sub(ARGV[2], 1, 10) then return 2 end
return 0
)lua";
constexpr int64_t kRecordChanged = 2;

uint64_t NewGeneration() {
  thread_local std::mt19937_64 generator([] {
    std::random_device device;
    return uint64_t{device()} << 32 | device();
  }());
  return generator();
}

bool ValidPrefix(std::string_view prefix) {
  if (prefix.empty() || prefix.size() > 64) return false;
  return std::all_of(prefix.begin(), prefix.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '.' ||
           c == '_' || c == '-';
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<RedisTier>> RedisTier::Create(const redis::TierOptions& options,
                                                             FaultPoints* faults) {
  if (!ValidPrefix(options.prefix)) {
    return absl::InvalidArgumentError(absl::StrCat("the redis prefix '", options.prefix,
                                                   "' is not 1 to 64 letters, digits, '.', '_' and '-'"));
  }
  if (options.ttl.count() < 0 || options.staging.count() < 1 || options.slowest_bytes_per_second == 0)
    return absl::InvalidArgumentError("redis ttl, staging and slowest rate must not be negative or zero");
  redis::Seal seal;
  if (!options.hmac_key_file.empty()) {
    QUIRE_ASSIGN_OR_RETURN(seal, redis::Seal::FromFile(options.hmac_key_file));
  }
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<redis::Client> client, redis::Client::Create(options.client));
  return std::unique_ptr<RedisTier>(new RedisTier(options, faults, seal, std::move(client)));
}

RedisTier::RedisTier(const redis::TierOptions& options, FaultPoints* faults, redis::Seal seal,
                     std::unique_ptr<redis::Client> client)
    : options_(options),
      faults_(faults),
      seal_(std::move(seal)),
      ledger_(options.capacity_bytes),
      client_(std::move(client)) {}

RedisTier::~RedisTier() = default;

RedisTier::NameLocks::NameLocks(RedisTier& tier, std::span<const ObjectName> names) {
  std::set<size_t> stripes;  // in order: no two calls wait for each other
  for (const ObjectName& name : names) stripes.insert(absl::HashOf(name) % kStripes);
  for (size_t stripe : stripes) locks_.emplace_back(tier.stripes_[stripe]);
}

absl::Status RedisTier::Check() {
  Request request;
  request.command = redis::Command({"PING"});
  client_->Execute({&request, 1}, redis::Clock::now() + options_.client.timeout);
  return request.status.ok() ? request.reply.status() : request.status;
}

RedisTier::Counters RedisTier::counters() const {
  return {client_->counters(), wrong_records_.load(), incomplete_.load()};
}

uint64_t RedisTier::used_bytes() const { return ledger_.used_bytes(NowMs()); }

uint64_t RedisTier::Charge(const ObjectRecord& record) const {
  return record.bytes() + kRecordCharge + record.levels * kLevelCharge;
}

int64_t RedisTier::TtlMs(const ObjectRecord& record) const {
  int64_t ttl = std::chrono::duration_cast<std::chrono::milliseconds>(options_.ttl).count();
  int64_t left = record.expires_ms - NowMs();
  if (record.expires_ms == 0 || left <= 0) return ttl;
  return ttl == 0 ? left : std::min(ttl, left);
}

std::string RedisTier::HashKey(const Digest& tenant, const Digest& key) const {
  return absl::StrCat(options_.prefix, ":", kFormat, ":{", tenant.Hex(), ":", key.Hex(), "}");
}

RedisTier::Place RedisTier::PlaceOf(const ObjectName& name) const {
  Place place{name, HashKey(name.tenant, name.key), name.Encode().substr(ObjectName::kPrefixBytes), 0};
  place.slot = redis::KeySlot(place.hash_key);
  return place;
}

std::string RedisTier::LevelKey(const Place& place, uint64_t generation, uint32_t level) {
  return absl::StrCat(place.hash_key, ":", absl::StrFormat("%016x", generation), ":", level);
}

Request RedisTier::Single(const Place& place, const std::vector<std::string_view>& arguments) const {
  Request request;
  request.command = redis::Command(arguments);
  request.slot = place.slot;
  return request;
}

// Small commands get the time-out, values the time that they take on a slow network besides.
void RedisTier::Execute(std::span<Request> requests) {
  uint64_t bytes = 0;
  for (const Request& request : requests) bytes += request.command.bytes() + request.into.size();
  std::chrono::milliseconds allowed =
      options_.client.timeout + std::chrono::milliseconds(bytes * 1000 / options_.slowest_bytes_per_second);
  auto deadline = redis::Clock::now() + allowed;
  auto fail_all = [&](const absl::Status& status) {
    for (Request& request : requests) request.status = status;
  };
  if (faults_ == nullptr) return client_->Execute(requests, deadline);

  faults_->DelayHere(Fault::kSlowTier);
  if (faults_->Take(Fault::kRedisDown)) return fail_all(absl::UnavailableError("redis is down (injected)"));
  bool half_open = faults_->Take(Fault::kRedisHalfOpen);
  std::optional<uint64_t> slow_ms = faults_->TakeParameter(Fault::kRedisSlow);
  client_->Execute(requests, deadline);
  if (half_open || slow_ms) {
    auto late = half_open ? allowed : std::chrono::milliseconds(*slow_ms);
    std::this_thread::sleep_for(std::min(allowed, late));
    if (late >= allowed) fail_all(absl::DeadlineExceededError("redis does not answer (injected)"));
  }
}

absl::Status RedisTier::Write(const ObjectName& name, const ObjectRecord& record, Bytes object) {
  QUIRE_RETURN_IF_ERROR(record.Validate());
  if (object.size() != record.bytes()) {
    return absl::InvalidArgumentError(
        absl::StrCat("an object of ", object.size(), " bytes whose record states ", record.bytes()));
  }
  for (uint32_t level = 0; level < record.levels; ++level) {
    if (uint64_t bytes = LevelExtent(record, level).length; bytes > redis::kMaxValueBytes) {
      return absl::InvalidArgumentError(absl::StrCat("level ", level, " has ", bytes, " bytes; redis takes ",
                                                     redis::kMaxValueBytes, " as one value"));
    }
  }
  uint64_t charge = Charge(record);
  NameLocks locks(*this, {&name, 1});
  QUIRE_RETURN_IF_ERROR(ledger_.Reserve(name, charge, NowMs()));
  Place place = PlaceOf(name);
  StoredRecord stored{NewGeneration(), {}, record};
  if (seal_) {
    for (uint32_t level = 0; level < record.levels; ++level) {
      Extent extent = LevelExtent(record, level);
      stored.level_codes.push_back(
          seal_.OfLevel(name, stored.generation, level, object.subspan(extent.offset, extent.length)));
    }
  }
  int64_t ttl_ms = TtlMs(record);
  std::string raw = stored.Serialize(seal_, name);
  Found before{place, ""}, after{place, raw};
  absl::Status status = StageLevels(before, stored, object);
  if (status.ok()) status = CommitRecord(before, raw, ttl_ms);
  if (status.ok()) status = KeepLevels(place, stored, ttl_ms, before.raw);
  if (!status.ok()) {
    // Levels that were written expire by themselves; here they go sooner, and so does a record that was set.
    if (!absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status)) {
      Discard({&after, 1}).IgnoreError();
      if (!before.raw.empty()) KeepChanged({&before, 1});
    }
    ledger_.Return(charge);
    return status;
  }
  ledger_.Commit(name, charge, ttl_ms == 0 ? 0 : NowMs() + ttl_ms);
  return absl::OkStatus();
}

// Writes the levels under names that no record knows yet, and asks for the record that is to be replaced.
absl::Status RedisTier::StageLevels(Found& before, const StoredRecord& stored, Bytes object) {
  const Place& place = before.place;
  std::string staging_ms = absl::StrCat(std::chrono::milliseconds(options_.staging).count());
  std::vector<Request> requests = {Single(place, {"HGET", place.hash_key, place.field})};
  for (uint32_t level = stored.record.levels; level-- > 0;) {  // the header, in level 0, last
    Extent extent = LevelExtent(stored.record, level);
    Request& set = requests.emplace_back();
    set.command = redis::Command({"SET", LevelKey(place, stored.generation, level), "PX", staging_ms}, 2,
                                 object.subspan(extent.offset, extent.length));
    set.slot = place.slot;
  }
  Execute(requests);
  QUIRE_RETURN_IF_ERROR(FirstFailure(requests));
  if (requests[0].reply.is(Reply::Type::kString)) before.raw = std::move(requests[0].reply.text);
  return absl::OkStatus();
}

// Sets the record in place of `before`, whose levels get a time to live first. `before` becomes what was
// really replaced.
absl::Status RedisTier::CommitRecord(Found& before, const std::string& raw, int64_t ttl_ms) {
  const Place& place = before.place;
  std::vector<Request> requests;
  std::string staging_ms = absl::StrCat(std::chrono::milliseconds(options_.staging).count());
  if (std::optional<uint64_t> old = StoredRecord::GenerationOf(AsBytes(before.raw))) {
    for (uint32_t level = 0; level < kMaxLevels; ++level)
      requests.push_back(Single(place, {"PEXPIRE", LevelKey(place, *old, level), staging_ms}));
  }
  requests.push_back(
      Single(place, {"EVAL", kSetRecord, "1", place.hash_key, place.field, raw, absl::StrCat(ttl_ms)}));
  Execute(requests);
  QUIRE_RETURN_IF_ERROR(FirstFailure(requests));
  Reply& reply = requests.back().reply;
  if (!reply.is(Reply::Type::kString) && !reply.is(Reply::Type::kNil))
    return redis::Unexpected("a record", reply);
  before.raw = std::move(reply.text);
  return absl::OkStatus();
}

// Gives the levels the life that the record has, and takes those of the object it replaced away.
absl::Status RedisTier::KeepLevels(const Place& place, const StoredRecord& stored, int64_t ttl_ms,
                                   const std::string& replaced) {
  std::vector<Request> requests;
  std::string ttl = absl::StrCat(ttl_ms);
  for (uint32_t level = 0; level < stored.record.levels; ++level) {
    std::string key = LevelKey(place, stored.generation, level);
    requests.push_back(ttl_ms == 0 ? Single(place, {"PERSIST", key}) : Single(place, {"PEXPIRE", key, ttl}));
  }
  if (std::optional<uint64_t> old = StoredRecord::GenerationOf(AsBytes(replaced))) {
    for (uint32_t level = 0; level < kMaxLevels; ++level)
      requests.push_back(Single(place, {"UNLINK", LevelKey(place, *old, level)}));
  }
  Execute(requests);
  for (uint32_t level = 0; level < stored.record.levels; ++level) {
    QUIRE_RETURN_IF_ERROR(Outcome(requests[level]));
    if (requests[level].reply.integer != 1) {
      return absl::ResourceExhaustedError(
          absl::StrCat("redis evicted level ", level, " of an object while it was written"));
    }
  }
  return absl::OkStatus();
}

absl::Status RedisTier::DropLevels(const ObjectName& name, const ObjectRecord& record) {
  QUIRE_RETURN_IF_ERROR(record.Validate());
  NameLocks locks(*this, {&name, 1});
  std::string staging_ms = absl::StrCat(std::chrono::milliseconds(options_.staging).count());
  for (int round = 0; round < kRounds; ++round) {
    Found found{PlaceOf(name), ""};
    QUIRE_RETURN_IF_ERROR(FetchRecords({&found, 1}, {}));
    if (found.raw.empty()) return absl::NotFoundError("redis has no such object");
    absl::StatusOr<StoredRecord> now = StoredRecord::Parse(seal_, name, AsBytes(found.raw));
    if (absl::IsUnimplemented(now.status())) return absl::NotFoundError(now.status().message());
    QUIRE_RETURN_IF_ERROR(now.status());
    bool same = now->record.fingerprint == record.fingerprint && now->record.parent == record.parent &&
                now->record.ends == record.ends;
    if (!same) return absl::NotFoundError("redis holds another object of that name now");
    if (now->record.levels < record.levels) {
      return absl::InvalidArgumentError(
          absl::StrCat("redis holds ", now->record.levels, " levels; ", record.levels, " cannot be kept"));
    }

    StoredRecord kept{now->generation, now->level_codes, record};
    if (!kept.level_codes.empty()) kept.level_codes.resize(record.levels);
    // A store without the key keeps no codes that it cannot renew.
    if (!seal_) kept.level_codes.clear();
    std::vector<Request> requests;
    for (uint32_t level = record.levels; level < now->record.levels; ++level) {
      requests.push_back(
          Single(found.place, {"PEXPIRE", LevelKey(found.place, now->generation, level), staging_ms}));
    }
    requests.push_back(Single(found.place, {"EVAL", kReplaceRecord, "1", found.place.hash_key,
                                            found.place.field, found.raw, kept.Serialize(seal_, name)}));
    Execute(requests);
    QUIRE_RETURN_IF_ERROR(FirstFailure(requests));
    if (requests.back().reply.integer != 1) continue;
    requests.clear();
    for (uint32_t level = record.levels; level < now->record.levels; ++level)
      requests.push_back(Single(found.place, {"UNLINK", LevelKey(found.place, now->generation, level)}));
    Execute(requests);  // what stays expires
    ledger_.Shrink(name, Charge(record));
    return absl::OkStatus();
  }
  return absl::NotFoundError("redis' object of that name changes all the time");
}

absl::Status RedisTier::Remove(std::span<const ObjectName> names) {
  NameLocks locks(*this, names);
  std::vector<Found> left;
  for (const ObjectName& name : names) left.push_back({PlaceOf(name), ""});
  for (int round = 0; round < kRounds && !left.empty(); ++round) {
    QUIRE_RETURN_IF_ERROR(FetchRecords(left, {}));
    std::erase_if(left, [&](const Found& found) {
      if (found.raw.empty()) ledger_.Forget(found.place.name);
      return found.raw.empty();
    });
    QUIRE_RETURN_IF_ERROR(Discard(left));
  }
  return absl::OkStatus();
}

absl::Status RedisTier::Discard(std::span<const Found> objects) {
  std::string staging_ms = absl::StrCat(std::chrono::milliseconds(options_.staging).count());
  std::vector<Request> requests, unlinks;
  std::vector<size_t> removals;  // of each object, in `requests`
  std::vector<Found> changed;
  for (const Found& object : objects) {
    if (std::optional<uint64_t> generation = StoredRecord::GenerationOf(AsBytes(object.raw))) {
      for (uint32_t level = 0; level < kMaxLevels; ++level) {
        std::string key = LevelKey(object.place, *generation, level);
        requests.push_back(Single(object.place, {"PEXPIRE", key, staging_ms}));
      }
    }
    removals.push_back(requests.size());
    requests.push_back(Single(
        object.place, {"EVAL", kRemoveRecord, "1", object.place.hash_key, object.place.field, object.raw}));
  }
  Execute(requests);
  QUIRE_RETURN_IF_ERROR(FirstFailure(requests));
  for (size_t i = 0; i < objects.size(); ++i) {
    std::optional<uint64_t> generation = StoredRecord::GenerationOf(AsBytes(objects[i].raw));
    if (requests[removals[i]].reply.integer == kRecordChanged) changed.push_back(objects[i]);
    if (!generation || requests[removals[i]].reply.integer == kRecordChanged) continue;
    for (uint32_t level = 0; level < kMaxLevels; ++level)
      unlinks.push_back(Single(objects[i].place, {"UNLINK", LevelKey(objects[i].place, *generation, level)}));
  }
  Execute(unlinks);  // what stays expires
  if (!changed.empty()) KeepChanged(changed);
  return absl::OkStatus();
}

// Gives the levels of objects that are still there their life back; it was taken for something that then did
// not happen.
void RedisTier::KeepChanged(std::span<const Found> objects) {
  std::vector<Found> now(objects.begin(), objects.end());
  std::vector<absl::Status> statuses(now.size());
  FetchRecords(now, statuses).IgnoreError();
  for (size_t i = 0; i < now.size(); ++i) {
    if (!statuses[i].ok() || now[i].raw.empty()) continue;
    absl::StatusOr<StoredRecord> stored = StoredRecord::Parse(seal_, now[i].place.name, AsBytes(now[i].raw));
    if (stored.ok()) KeepLevels(now[i].place, *stored, TtlMs(stored->record), "").IgnoreError();
  }
}

absl::Status RedisTier::Scan(absl::FunctionRef<void(const ObjectName&, const ObjectRecord&)>) {
  return absl::OkStatus();  // what is there is everybody's: only Find tells
}

}  // namespace quire::store

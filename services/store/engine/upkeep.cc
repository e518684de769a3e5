// What operators ask of a store: tenants' limits, scrubbing, draining.
#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/api/limits.h"
#include "services/store/engine/local_store.h"

namespace quire::store {
namespace {

absl::Status CheckTenantName(const std::string& tenant) {
  if (tenant.size() <= kMaxTenantBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("tenant name of ", tenant.size(), " bytes: at most ", kMaxTenantBytes));
}

// Keeps a scrub at its rate: called after so many bytes in all, waits until they may have been read, as long
// as `go_on`, asked several times a second, says so. False: it did not.
class Pace {
 public:
  explicit Pace(uint64_t bytes_per_second) : rate_(bytes_per_second) {}
  bool After(uint64_t bytes, absl::FunctionRef<bool()> go_on) const {
    using std::chrono::steady_clock;
    constexpr auto kLookUp = std::chrono::milliseconds(100);
    constexpr double kLongest = 1e9;  // seconds, which a clock's count of nanoseconds holds
    if (rate_ == 0) return true;
    std::chrono::duration<double> due(
        std::min(static_cast<double>(bytes) / static_cast<double>(rate_), kLongest));
    const auto until = start_ + std::chrono::duration_cast<steady_clock::duration>(due);
    for (auto now = steady_clock::now(); now < until; now = steady_clock::now()) {
      if (!go_on()) return false;
      std::this_thread::sleep_until(std::min<steady_clock::time_point>(until, now + kLookUp));
    }
    return true;
  }

 private:
  const uint64_t rate_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

absl::StatusOr<TenantRules> LocalStore::Rules(const std::string& tenant) {
  QUIRE_RETURN_IF_ERROR(CheckTenantName(tenant));
  std::optional<uint32_t> number = tenants_.Find(tenant);
  if (!number) return TenantRules{options_.default_quota_bytes, 0};
  return tenants_.Rules(*number);
}

absl::Status LocalStore::SetRules(const std::string& tenant, const TenantRules& rules) {
  QUIRE_RETURN_IF_ERROR(CheckTenantName(tenant));
  if (rules.floor_levels > kMaxLevels) {
    return absl::InvalidArgumentError(
        absl::StrCat("floor of ", rules.floor_levels, " levels: at most ", kMaxLevels));
  }
  QUIRE_ASSIGN_OR_RETURN(uint32_t number, AddTenant(tenant));
  tenants_.SetRules(number, rules);
  placement_->SetShare(number, rules.quota_bytes);
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> LocalStore::Quota(const std::string& tenant) {
  QUIRE_ASSIGN_OR_RETURN(TenantRules rules, Rules(tenant));
  return rules.quota_bytes;
}

absl::Status LocalStore::SetQuota(const std::string& tenant, uint64_t bytes) {
  QUIRE_ASSIGN_OR_RETURN(TenantRules rules, Rules(tenant));
  rules.quota_bytes = bytes;
  return SetRules(tenant, rules);
}

absl::StatusOr<uint64_t> LocalStore::StoredBytes(const std::string& tenant) const {
  QUIRE_RETURN_IF_ERROR(CheckTenantName(tenant));
  std::optional<uint32_t> number = tenants_.Find(tenant);
  return number ? tenants_.stored(*number) : 0;
}

absl::StatusOr<uint64_t> LocalStore::DeleteTenant(const std::string& tenant) {
  QUIRE_RETURN_IF_ERROR(CheckTenantName(tenant));
  uint64_t deleted = 0;
  std::optional<uint32_t> number = tenants_.Find(tenant);
  if (!number) return deleted;
  std::vector<BlockName> names;
  index_.ForEach(*number,
                 [&](const BlockName& name, const std::vector<StoredObjectPtr>&) { names.push_back(name); });
  for (const BlockName& name : names) {
    std::vector<StoredObjectPtr> copies = index_.Delete(name, /*force=*/true, options_.now_ms());
    placement_->Discard(name, copies, StoreCounters::Gone::kDeleted);
    deleted += copies.empty() ? 0 : 1;
  }
  return deleted;
}

absl::Status LocalStore::Verify(Tier tier, uint64_t bytes_per_second,
                                absl::FunctionRef<bool(const VerifyProgress&)> progress) {
  struct Copy {
    BlockName name;
    Part part;
    Tier tier;
  };
  std::vector<Copy> all;
  index_.ForEach(std::nullopt, [&](const BlockName& name, const std::vector<StoredObjectPtr>& copies) {
    for (const StoredObjectPtr& copy : copies) {
      if (tier == Tier::kNone || copy->tier == tier) all.push_back({name, copy->part, copy->tier});
    }
  });
  constexpr size_t kReportEvery = 64;
  Pace pace(bytes_per_second);
  VerifyProgress now;
  for (size_t i = 0; i < all.size(); ++i) {
    const Copy& copy = all[i];
    StoredObjectPtr object = index_.PeekIn(copy.name, copy.part, copy.tier);
    if (object != nullptr) {
      absl::Status checked = placement_->Check(copy.name, object);
      ++now.blocks;
      now.bytes += object->record.bytes();
      now.failures += absl::IsDataLoss(checked) ? 1 : 0;
      now.unreadable += !checked.ok() && !absl::IsDataLoss(checked) ? 1 : 0;
      if (!pace.After(now.bytes, [&] { return progress(now); }))
        return absl::CancelledError("verification was stopped");
    }
    now.done = static_cast<double>(i + 1) / static_cast<double>(all.size());
    if (i % kReportEvery == kReportEvery - 1 && !progress(now))
      return absl::CancelledError("verification was stopped");
  }
  now.done = 1;
  progress(now);
  return absl::OkStatus();
}

absl::Status LocalStore::Drain(std::chrono::milliseconds patience) {
  auto deadline = std::chrono::steady_clock::now() + patience;
  {
    std::unique_lock lock(budget_mu_);
    draining_ = true;
    if (!sessions_ended_.wait_until(lock, deadline, [&] { return sessions_ == 0; })) {
      return absl::DeadlineExceededError(
          absl::StrCat("after ", patience.count(), " ms ", sessions_, " put sessions are still open"));
    }
  }
  auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
  return placement_->Settle(std::max(left, std::chrono::milliseconds(1)));
}

}  // namespace quire::store

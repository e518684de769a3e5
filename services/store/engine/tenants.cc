#include "services/store/engine/tenants.h"

#include "absl/strings/str_cat.h"

namespace quire::store {

Digest Tenants::StorageName(const std::string& name) const {
  std::string message("quire.tenant.v1");
  uint32_t size = static_cast<uint32_t>(name.size());
  message.append(reinterpret_cast<const char*>(&size), sizeof(size));
  message += name;
  return HmacSha256(secret_, message);
}

std::optional<uint32_t> Tenants::Find(const std::string& name) const {
  {
    std::shared_lock lock(mu_);
    if (auto it = storage_names_.find(name); it != storage_names_.end())
      return by_storage_name_.at(it->second);
    if (tenants_.size() == storage_names_.size()) return std::nullopt;  // none came from storage unnamed
  }
  Digest storage_name = StorageName(name);
  std::lock_guard lock(mu_);
  auto it = by_storage_name_.find(storage_name);
  if (it == by_storage_name_.end()) return std::nullopt;
  storage_names_.emplace(name, storage_name);
  return it->second;
}

absl::StatusOr<uint32_t> Tenants::AddLocked(const Digest& storage_name) {
  if (auto it = by_storage_name_.find(storage_name); it != by_storage_name_.end()) return it->second;
  if (tenants_.size() >= most_) {
    return absl::ResourceExhaustedError(absl::StrCat("the store knows ", most_, " tenants, its limit"));
  }
  uint32_t number = static_cast<uint32_t>(tenants_.size());
  tenants_.push_back(std::make_unique<Tenant>());
  tenants_.back()->storage_name = storage_name;
  tenants_.back()->quota.store(rules_.quota_bytes, std::memory_order_relaxed);
  by_storage_name_.emplace(storage_name, number);
  return number;
}

absl::StatusOr<uint32_t> Tenants::Add(const std::string& name) {
  if (std::optional<uint32_t> number = Find(name)) return *number;
  Digest storage_name = StorageName(name);
  std::lock_guard lock(mu_);
  absl::StatusOr<uint32_t> number = AddLocked(storage_name);
  if (number.ok()) storage_names_.emplace(name, storage_name);
  return number;
}

absl::StatusOr<uint32_t> Tenants::AddStorageName(const Digest& storage_name) {
  std::lock_guard lock(mu_);
  return AddLocked(storage_name);
}

Tenants::Tenant& Tenants::At(uint32_t tenant) const {
  std::shared_lock lock(mu_);
  return *tenants_[tenant];
}

Digest Tenants::StorageName(uint32_t tenant) const { return At(tenant).storage_name; }

void Tenants::SetRules(uint32_t tenant, const TenantRules& rules) {
  Tenant& t = At(tenant);
  t.quota.store(rules.quota_bytes, std::memory_order_relaxed);
  t.floor_levels.store(rules.floor_levels, std::memory_order_relaxed);
}

TenantRules Tenants::Rules(uint32_t tenant) const {
  Tenant& t = At(tenant);
  return {t.quota.load(std::memory_order_relaxed), t.floor_levels.load(std::memory_order_relaxed)};
}

uint32_t Tenants::FloorLevels(uint32_t tenant) const {
  uint32_t own = At(tenant).floor_levels.load(std::memory_order_relaxed);
  return own == 0 ? rules_.floor_levels : own;
}

void Tenants::AddStored(uint32_t tenant, int64_t delta) {
  At(tenant).stored.fetch_add(static_cast<uint64_t>(delta), std::memory_order_relaxed);
}

uint64_t Tenants::stored(uint32_t tenant) const { return At(tenant).stored.load(std::memory_order_relaxed); }

bool Tenants::Reserve(uint32_t tenant, uint64_t bytes) {
  Tenant& t = At(tenant);
  std::lock_guard lock(t.mu);
  uint64_t quota = t.quota.load(std::memory_order_relaxed);
  if (quota != 0 && t.stored.load(std::memory_order_relaxed) + t.reserved + bytes > quota) return false;
  t.reserved += bytes;
  return true;
}

void Tenants::Unreserve(uint32_t tenant, uint64_t bytes) {
  Tenant& t = At(tenant);
  std::lock_guard lock(t.mu);
  t.reserved -= bytes;
}

}  // namespace quire::store

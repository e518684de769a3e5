// The tenants of a store: their numbers in this process, their names in storage, what they hold and may hold.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/node_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/digest.h"

namespace quire::store {

struct TenantRules {
  uint64_t quota_bytes = 0;   // stored bytes, each block once; 0: no limit
  uint32_t floor_levels = 0;  // the fewest levels blocks are cut down to; 0: the store's default
};

// Thread-safe. Tenants are never forgotten while the process lives.
class Tenants {
 public:
  // `secret`: of the HMAC that makes names in storage; empty: plain hashes (then storage shows who has blocks
  // to whoever can guess names). `rules`: of tenants that were not given any of their own.
  Tenants(std::string secret, uint32_t most, const TenantRules& rules)
      : secret_(std::move(secret)), most_(most), rules_(rules) {}

  // The number of a tenant that has stored something; none otherwise.
  std::optional<uint32_t> Find(const std::string& name) const;
  // RESOURCE_EXHAUSTED past the limit on tenants.
  absl::StatusOr<uint32_t> Add(const std::string& name);
  absl::StatusOr<uint32_t> AddStorageName(const Digest& storage_name);
  Digest StorageName(uint32_t tenant) const;
  Digest StorageName(const std::string& name) const;

  void SetRules(uint32_t tenant, const TenantRules& rules);
  TenantRules Rules(uint32_t tenant) const;
  uint32_t FloorLevels(uint32_t tenant) const;

  // Bytes held, by the index; they may pass a quota that was lowered.
  void AddStored(uint32_t tenant, int64_t delta);
  uint64_t stored(uint32_t tenant) const;
  // Bytes that a put is about to store: false if they would pass the quota together with what is stored and
  // reserved.
  bool Reserve(uint32_t tenant, uint64_t bytes);
  void Unreserve(uint32_t tenant, uint64_t bytes);

 private:
  struct Tenant {
    Digest storage_name;
    std::atomic<uint64_t> quota{0}, stored{0};
    std::atomic<uint32_t> floor_levels{0};
    std::mutex mu;  // guards reserved, and with it the decision on a reservation
    uint64_t reserved = 0;
  };
  Tenant& At(uint32_t tenant) const;
  absl::StatusOr<uint32_t> AddLocked(const Digest& storage_name);

  const std::string secret_;
  const uint32_t most_;
  const TenantRules rules_;
  mutable std::shared_mutex mu_;  // guards all below
  absl::flat_hash_map<Digest, uint32_t> by_storage_name_;
  mutable absl::flat_hash_map<std::string, Digest> storage_names_;  // of tenants that have a number
  std::vector<std::unique_ptr<Tenant>> tenants_;
};

}  // namespace quire::store

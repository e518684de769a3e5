// The flags of a store's engine and tiers, for every binary that runs one.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "services/store/disk/disk_tier.h"
#include "services/store/engine/local_store.h"
#include "services/store/redis/options.h"

namespace CLI {
class App;
}

namespace quire::store {

struct StoreFlags {
  LocalStoreOptions store;
  uint64_t gpu_bytes = 0;  // 0: no GPU tier
  std::string policy = "lru";
  uint32_t floor_bits = 3;
  DiskTierOptions disk;  // no folder: no disk tier
  std::string disk_sync = "log";
  redis::TierOptions redis;  // no address: no Redis tier
  std::string tenant_secret_file;
};

// Adds them all. `flags` must outlive the parse.
void AddStoreFlags(CLI::App& app, StoreFlags& flags);

// Opens the tiers that the flags name. Errors name the flag, the folder or the address.
absl::StatusOr<LocalStoreOptions> OpenTiers(StoreFlags flags);

}  // namespace quire::store

#include "services/store/config/store_flags.h"

#include <CLI/CLI.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/config/open_gpu.h"
#include "services/store/config/tenant_secret.h"
#include "services/store/redis/redis_tier.h"

namespace quire::store {
namespace {

// A terabyte in 18 hours, for a hundredth of a disk's bandwidth.
constexpr uint64_t kScrubBytesPerSecond = 16 << 20;

void AddArenaFlags(CLI::App& app, StoreFlags& flags) {
  app.add_option("--host-bytes", flags.store.host_bytes,
                 "Size of the host memory tier, reserved at start; 512MiB, 16GiB, …")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->capture_default_str();
  app.add_option(
         "--gpu-bytes", flags.gpu_bytes,
         "Size of the GPU memory tier, reserved at start, whose GPU then codes for all clients; 0: none")
      ->transform(CLI::AsSizeValue(false));
  app.add_flag("--host-prefault", flags.store.host_prefault, "Touch all of that memory at start");
  app.add_option("--max-put-sessions", flags.store.max_put_sessions, "Put streams open at a time")
      ->capture_default_str();
  app.add_option("--max-announced-bytes", flags.store.max_announced_bytes,
                 "Bytes that open put streams may have announced together; 0: the size of the host tier")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  app.add_option("--max-staged-raw-bytes", flags.store.max_staged_raw_bytes,
                 "Raw KV received and not yet encoded")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  app.add_option("--max-tenants", flags.store.max_tenants, "Tenants known at a time")->capture_default_str();
  app.add_option("--watch-events", flags.store.events.events_per_tenant,
                 "Events of each tenant kept for Watch to replay, 40 bytes each")
      ->check(CLI::Range(128, 1 << 22))
      ->capture_default_str();
  app.add_flag("--enable-faults", flags.store.enable_faults, "Let StoreAdmin.InjectFault work; for tests");
}

void AddPlacementFlags(CLI::App& app, StoreFlags& flags) {
  PlacementOptions& placement = flags.store.placement;
  app.add_option("--eviction", flags.policy, "Which block goes first: lru, s3fifo or lfu")
      ->capture_default_str();
  app.add_option("--floor-bits", flags.floor_bits,
                 "Cold blocks lose bits down to so many before any is evicted: 2, 3, 4, or 8: none loses any")
      ->check(CLI::IsMember({2, 3, 4, 8}))
      ->capture_default_str();
  app.add_option("--hot-share", placement.hot_share,
                 "Share of a tenant's bytes in a tier, of those used last, that keeps its bits")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--quota-bytes", flags.store.default_quota_bytes,
                 "Stored bytes of a tenant that has no quota of its own; 0: no limit")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  app.add_option("--mover-threads", placement.mover.threads, "Threads that move blocks between tiers")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--mover-queue", placement.mover.queued_writes,
                 "Blocks that may wait to be written to slower tiers; then puts wait")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--scrub-bytes-per-second", flags.store.scrub.bytes_per_second,
                 "Rate at which what is stored is read and checked in the background, all tiers together, a "
                 "quarter of it while the store is in use; 0: never")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  app.add_option(
      "--tenant-secret-file", flags.tenant_secret_file,
      "Secret from which tenants' names on disk and in Redis are made, the same for all stores that share a "
      "Redis; not given: one is made in the disk tier's folder");
}

void AddDiskFlags(CLI::App& app, StoreFlags& flags) {
  app.add_option("--disk-folder", flags.disk.folder, "Folder of the disk tier; not given: no disk tier");
  app.add_option("--disk-bytes", flags.disk.capacity_bytes, "Size of the disk tier")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--disk-sync", flags.disk_sync,
                 "What a crash may cost of blocks the disk acknowledged: none: those in write buffers; log: "
                 "nothing if the process dies, what the page cache holds if the machine does; sync: nothing")
      ->check(CLI::IsMember({"none", "log", "sync"}))
      ->capture_default_str();
  app.add_flag("--disk-direct-io,!--no-disk-direct-io", flags.disk.direct_io,
               "Read and write past the page cache");
  app.add_flag("--write-through", flags.store.placement.write_through,
               "Acknowledge a block when the disk has it, not when memory has");
}

}  // namespace

void AddStoreFlags(CLI::App& app, StoreFlags& flags) {
  flags.store.scrub.bytes_per_second = kScrubBytesPerSecond;
  AddArenaFlags(app, flags);
  AddPlacementFlags(app, flags);
  AddDiskFlags(app, flags);
  redis::AddRedisFlags(app, flags.redis);
}

absl::StatusOr<LocalStoreOptions> OpenTiers(StoreFlags flags) {
  LocalStoreOptions options = std::move(flags.store);
  QUIRE_ASSIGN_OR_RETURN(options.placement.policy, ParsePolicyKind(flags.policy));
  options.floor_levels = flags.floor_bits == 8 ? kMaxLevels : flags.floor_bits - 1;
  if (options.faults == nullptr) options.faults = std::make_shared<FaultPoints>();
  if (flags.gpu_bytes > 0) {
    QUIRE_ASSIGN_OR_RETURN(options.gpu, OpenGpu(flags.gpu_bytes));
  }
  bool has_disk = !flags.disk.folder.empty();
  if (has_disk != (flags.disk.capacity_bytes != 0)) {
    return absl::InvalidArgumentError("a disk tier takes both --disk-folder and --disk-bytes");
  }
  if (options.placement.write_through && !has_disk) {
    return absl::InvalidArgumentError(
        "--write-through without a disk tier; give --disk-folder and --disk-bytes");
  }
  if (has_disk) {
    flags.disk.sync = flags.disk_sync == "none"   ? DiskSync::kNone
                      : flags.disk_sync == "sync" ? DiskSync::kSync
                                                  : DiskSync::kLog;
    flags.disk.faults = options.faults;
    options.scrub.position_file = flags.disk.folder + ".scrub";
    QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<DiskTier> disk, DiskTier::Open(flags.disk));
    options.lower.push_back(std::move(disk));
  }
  if (!flags.redis.client.addresses.empty()) {
    if (flags.tenant_secret_file.empty()) {
      return absl::InvalidArgumentError(
          "a Redis tier takes --tenant-secret-file, the same on every store that shares it");
    }
    QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<RedisTier> redis,
                           RedisTier::Create(flags.redis, options.faults.get()));
    // The tier borrows the fault points: they die after it.
    options.lower.emplace_back(redis.release(), [faults = options.faults](ObjectTier* tier) { delete tier; });
  }
  if (!flags.tenant_secret_file.empty()) {
    QUIRE_ASSIGN_OR_RETURN(options.tenant_secret, ReadTenantSecret(flags.tenant_secret_file, /*make=*/false));
  } else if (has_disk) {
    QUIRE_ASSIGN_OR_RETURN(options.tenant_secret,
                           ReadTenantSecret(flags.disk.folder + ".secret", /*make=*/true));
  }
  return options;
}

}  // namespace quire::store

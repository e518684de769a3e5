#include "services/store/disk/disk_tier.h"
#include "tests/services/store/object_tier_conformance.h"
#include "tests/services/store/temp_folder.h"

namespace quire::store {
namespace {

TierBackend Disk(const std::string& name, DiskSync sync, bool direct_io) {
  return {name, [sync, direct_io](uint64_t capacity) -> std::shared_ptr<ObjectTier> {
            auto folder = std::make_shared<TempFolder>();
            DiskTierOptions options;
            options.folder = folder->path();
            options.capacity_bytes = capacity;
            options.sync = sync;
            options.direct_io = direct_io;
            auto tier = DiskTier::Open(options);
            EXPECT_TRUE(tier.ok()) << tier.status();
            if (!tier.ok()) return nullptr;
            // The folder goes after the tier.
            return {tier->get(), [folder, tier = *tier](ObjectTier*) mutable { tier.reset(); }};
          }};
}

INSTANTIATE_TEST_SUITE_P(Disk, ObjectTierConformance,
                         testing::Values(Disk("log", DiskSync::kLog, true),
                                         Disk("sync", DiskSync::kSync, false),
                                         Disk("none", DiskSync::kNone, true)),
                         BackendName);

}  // namespace
}  // namespace quire::store

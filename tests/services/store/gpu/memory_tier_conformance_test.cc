// The conformance suite on the tiers in memory: the host's, and the device's over memory of the host.
#include "services/store/engine/device_tier.h"
#include "services/store/engine/host_tier.h"
#include "tests/services/store/gpu/arena_as_tier.h"
#include "tests/services/store/gpu/host_device.h"
#include "tests/services/store/object_tier_conformance.h"

namespace quire::store {
namespace {

std::shared_ptr<ObjectTier> HostTierOf(uint64_t capacity) {
  return std::make_shared<ArenaAsTier>(*HostTier::Create(capacity, false));
}
std::shared_ptr<ObjectTier> DeviceTierOf(uint64_t capacity) {
  return std::make_shared<ArenaAsTier>(*DeviceTier::Create(std::make_shared<HostDevice>(), capacity));
}

INSTANTIATE_TEST_SUITE_P(Memory, ObjectTierConformance,
                         testing::Values(TierBackend{"host", &HostTierOf},
                                         TierBackend{"device", &DeviceTierOf}),
                         BackendName);

}  // namespace
}  // namespace quire::store

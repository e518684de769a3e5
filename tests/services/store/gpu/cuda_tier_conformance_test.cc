// The conformance suites on a GPU: of tiers, and of stores with a device.
#include "services/store/gpu/cuda_device.h"
#include "tests/services/store/gpu/arena_as_tier.h"
#include "tests/services/store/gpu/device_store.h"
#include "tests/services/store/object_tier_conformance.h"

namespace quire::store {
namespace {

std::shared_ptr<CudaDevice> OpenCuda() {
  CudaDeviceOptions options;
  options.staging_bytes = 4 << 20;
  options.batch_blocks = 8;
  absl::StatusOr<std::shared_ptr<CudaDevice>> device = CudaDevice::Create(options);
  return device.ok() ? *device : nullptr;
}

std::shared_ptr<ObjectTier> GpuTierOf(uint64_t capacity) {
  std::shared_ptr<CudaDevice> device = OpenCuda();
  if (device == nullptr) return nullptr;
  return std::make_shared<ArenaAsTier>(*DeviceTier::Create(device, capacity));
}

INSTANTIATE_TEST_SUITE_P(Cuda, ObjectTierConformance, testing::Values(TierBackend{"gpu", &GpuTierOf}),
                         BackendName);
INSTANTIATE_TEST_SUITE_P(Cuda, DeviceStore, testing::Values(DeviceBackend{"gpu", &OpenCuda}), DeviceName);

}  // namespace
}  // namespace quire::store

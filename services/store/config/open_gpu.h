// The GPU tier, in builds that have one.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "services/store/engine/device_tier.h"

namespace quire::store {

// A tier of so many bytes of the current GPU's memory. UNIMPLEMENTED in a build without CUDA, NOT_FOUND where
// there is no GPU, RESOURCE_EXHAUSTED where it has not the memory.
absl::StatusOr<std::shared_ptr<DeviceTier>> OpenGpu(uint64_t bytes);

}  // namespace quire::store

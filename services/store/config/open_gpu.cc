#include "services/store/config/open_gpu.h"

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/gpu/cuda_device.h"

namespace quire::store {

absl::StatusOr<std::shared_ptr<DeviceTier>> OpenGpu(uint64_t bytes) {
  absl::StatusOr<std::shared_ptr<CudaDevice>> device = CudaDevice::Create();
  if (!device.ok()) {
    return absl::Status(device.status().code(),
                        absl::StrCat("--gpu-bytes: ", std::string(device.status().message())));
  }
  return DeviceTier::Create(*std::move(device), bytes);
}

}  // namespace quire::store

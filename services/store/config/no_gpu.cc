#include "services/store/config/open_gpu.h"

namespace quire::store {

absl::StatusOr<std::shared_ptr<DeviceTier>> OpenGpu(uint64_t) {
  return absl::UnimplementedError("--gpu-bytes: this build has no GPU tier; `make gpu` builds one that has");
}

}  // namespace quire::store

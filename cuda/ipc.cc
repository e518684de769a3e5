#include "cuda/ipc.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "cuda/check.h"

namespace quire::cuda {
namespace {

struct Range {
  uint8_t* base = nullptr;
  uint64_t bytes = 0;
};

// The allocation that an address lies in. The runtime has no such call: this asks it for the driver's.
absl::StatusOr<Range> AllocationOf(const void* memory) {
  using Call = int (*)(unsigned long long*, size_t*, unsigned long long);
  constexpr unsigned kVersion = 12000;
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found;
  QUIRE_CUDA_RETURN_IF_ERROR(
      cudaGetDriverEntryPointByVersion("cuMemGetAddressRange", &entry, kVersion, cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess || entry == nullptr)
    return absl::InternalError("CUDA: this driver has no cuMemGetAddressRange");
  unsigned long long base = 0;
  size_t bytes = 0;
  int error = reinterpret_cast<Call>(entry)(&base, &bytes, reinterpret_cast<uintptr_t>(memory));
  if (error != 0) return absl::InternalError(absl::StrCat("CUDA: cuMemGetAddressRange: error ", error));
  return Range{reinterpret_cast<uint8_t*>(static_cast<uintptr_t>(base)), bytes};
}

}  // namespace

absl::StatusOr<DeviceUuid> CurrentDeviceUuid() {
  int device = 0;
  QUIRE_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  cudaDeviceProp properties;
  QUIRE_CUDA_RETURN_IF_ERROR(cudaGetDeviceProperties(&properties, device));
  DeviceUuid uuid;
  static_assert(sizeof(properties.uuid) == sizeof(uuid));
  std::memcpy(uuid.data(), &properties.uuid, sizeof(uuid));
  return uuid;
}

absl::StatusOr<SharedMemoryName> ShareMemory(const void* device_memory) {
  SharedMemoryName name;
  QUIRE_ASSIGN_OR_RETURN(Range range, AllocationOf(device_memory));
  QUIRE_ASSIGN_OR_RETURN(name.device, CurrentDeviceUuid());
  name.offset = static_cast<uint64_t>(static_cast<const uint8_t*>(device_memory) - range.base);
  cudaIpcMemHandle_t handle;
  static_assert(sizeof(handle) == sizeof(name.handle));
  QUIRE_CUDA_RETURN_IF_ERROR(cudaIpcGetMemHandle(&handle, const_cast<void*>(device_memory)));
  std::memcpy(name.handle.data(), &handle, sizeof(handle));
  return name;
}

absl::StatusOr<ImportedMemory> ImportedMemory::Open(const SharedMemoryName& name) {
  QUIRE_ASSIGN_OR_RETURN(DeviceUuid here, CurrentDeviceUuid());
  if (here != name.device) return absl::FailedPreconditionError("the memory is on another GPU");
  cudaIpcMemHandle_t handle;
  std::memcpy(&handle, name.handle.data(), sizeof(handle));
  void* base = nullptr;
  if (cudaError_t error = cudaIpcOpenMemHandle(&base, handle, cudaIpcMemLazyEnablePeerAccess);
      error != cudaSuccess) {
    return absl::FailedPreconditionError(std::string(ToStatus(error, "cudaIpcOpenMemHandle").message()));
  }
  ImportedMemory memory(static_cast<uint8_t*>(base), 0);
  QUIRE_ASSIGN_OR_RETURN(Range range, AllocationOf(base));
  memory.bytes_ = range.bytes - static_cast<uint64_t>(memory.base_ - range.base);
  return memory;
}

ImportedMemory::~ImportedMemory() {
  if (base_ != nullptr) cudaIpcCloseMemHandle(base_);
}

}  // namespace quire::cuda

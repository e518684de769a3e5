#include "absl/strings/str_cat.h"
#include "cuda/check.h"
#include "cuda/memory.h"
#include "cuda/stream.h"

namespace quire::cuda {

absl::Status ToStatus(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return absl::OkStatus();
  std::string message = absl::StrCat("CUDA: ", call, ": ", cudaGetErrorString(error));
  cudaGetLastError();  // an error that does not stick must not be seen again by the next check
  switch (error) {
    case cudaErrorMemoryAllocation:
      return absl::ResourceExhaustedError(message);
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInitializationError:
      return absl::NotFoundError(message);
    default:
      return absl::InternalError(message);
  }
}

namespace {
cudaStream_t Raw(StreamRef stream) { return static_cast<cudaStream_t>(stream.handle); }
}  // namespace

absl::StatusOr<Stream> Stream::Create() {
  cudaStream_t stream = nullptr;
  QUIRE_CUDA_RETURN_IF_ERROR(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return Stream(stream);
}

Stream::~Stream() {
  if (handle_ != nullptr) cudaStreamDestroy(static_cast<cudaStream_t>(handle_));
}

absl::Status Stream::Synchronize() const { return QUIRE_CUDA_CALL(cudaStreamSynchronize(Raw(ref()))); }

absl::StatusOr<Event> Event::Create(bool timed) {
  cudaEvent_t event = nullptr;
  QUIRE_CUDA_RETURN_IF_ERROR(
      cudaEventCreateWithFlags(&event, timed ? cudaEventDefault : cudaEventDisableTiming));
  return Event(event);
}

Event::~Event() {
  if (handle_ != nullptr) cudaEventDestroy(static_cast<cudaEvent_t>(handle_));
}

absl::Status Event::Record(StreamRef stream) const {
  return QUIRE_CUDA_CALL(cudaEventRecord(static_cast<cudaEvent_t>(handle_), Raw(stream)));
}

absl::Status Event::WaitOn(StreamRef stream) const {
  return QUIRE_CUDA_CALL(cudaStreamWaitEvent(Raw(stream), static_cast<cudaEvent_t>(handle_), 0));
}

absl::Status Event::Synchronize() const {
  return QUIRE_CUDA_CALL(cudaEventSynchronize(static_cast<cudaEvent_t>(handle_)));
}

absl::StatusOr<float> Event::MillisecondsSince(const Event& start) const {
  float ms = 0;
  QUIRE_CUDA_RETURN_IF_ERROR(
      cudaEventElapsedTime(&ms, static_cast<cudaEvent_t>(start.handle_), static_cast<cudaEvent_t>(handle_)));
  return ms;
}

absl::StatusOr<DeviceBuffer> DeviceBuffer::Allocate(size_t bytes) {
  void* data = nullptr;
  if (bytes > 0) QUIRE_CUDA_RETURN_IF_ERROR(cudaMalloc(&data, bytes));
  return DeviceBuffer(static_cast<uint8_t*>(data), bytes);
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) cudaFree(data_);
}

absl::StatusOr<PinnedBuffer> PinnedBuffer::Allocate(size_t bytes) {
  void* data = nullptr;
  if (bytes > 0)
    QUIRE_CUDA_RETURN_IF_ERROR(cudaHostAlloc(&data, bytes, cudaHostAllocPortable | cudaHostAllocMapped));
  return PinnedBuffer(static_cast<uint8_t*>(data), bytes);
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ != nullptr) cudaFreeHost(data_);
}

absl::StatusOr<HostRegistration> HostRegistration::Create(void* memory, size_t bytes) {
  QUIRE_CUDA_RETURN_IF_ERROR(
      cudaHostRegister(memory, bytes, cudaHostRegisterPortable | cudaHostRegisterMapped));
  return HostRegistration(memory);
}

HostRegistration::~HostRegistration() {
  if (memory_ != nullptr) cudaHostUnregister(memory_);
}

absl::StatusOr<size_t> FreeDeviceBytes() {
  size_t free = 0, total = 0;
  QUIRE_CUDA_RETURN_IF_ERROR(cudaMemGetInfo(&free, &total));
  return free;
}

absl::Status CopyToDevice(StreamRef stream, const void* host, size_t bytes, void* device) {
  return QUIRE_CUDA_CALL(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, Raw(stream)));
}

absl::Status CopyToHost(StreamRef stream, const void* device, size_t bytes, void* host) {
  return QUIRE_CUDA_CALL(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, Raw(stream)));
}

absl::Status CopyOnDevice(StreamRef stream, const void* from, size_t bytes, void* to) {
  return QUIRE_CUDA_CALL(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, Raw(stream)));
}

absl::Status CopyAny(StreamRef stream, const void* from, size_t bytes, void* to) {
  return QUIRE_CUDA_CALL(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, Raw(stream)));
}

absl::Status CopyRows(StreamRef stream, const void* from, size_t from_pitch, void* to, size_t to_pitch,
                      size_t width, size_t rows) {
  return QUIRE_CUDA_CALL(
      cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, rows, cudaMemcpyDefault, Raw(stream)));
}

absl::Status Fill(StreamRef stream, uint8_t value, size_t bytes, void* device) {
  return QUIRE_CUDA_CALL(cudaMemsetAsync(device, value, bytes, Raw(stream)));
}

absl::StatusOr<DeviceInfo> CurrentDevice() {
  int count = 0;
  if (cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess || count == 0) {
    return absl::NotFoundError(
        absl::StrCat("CUDA: no device can be used: ",
                     cudaGetErrorString(error == cudaSuccess ? cudaErrorNoDevice : error)));
  }
  DeviceInfo info;
  QUIRE_CUDA_RETURN_IF_ERROR(cudaGetDevice(&info.ordinal));
  int shared = 0;
  for (auto [value, attribute] : {std::pair{&info.major, cudaDevAttrComputeCapabilityMajor},
                                  {&info.minor, cudaDevAttrComputeCapabilityMinor},
                                  {&info.multiprocessors, cudaDevAttrMultiProcessorCount},
                                  {&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin}}) {
    QUIRE_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(value, attribute, info.ordinal));
  }
  info.shared_bytes = static_cast<size_t>(shared);
  return info;
}

}  // namespace quire::cuda

// A GPU as the store's device: cuda/'s kernels behind services/store/engine/device.h.
//
// Lanes, each a stream with staging on both sides, serve one call at a time; a call waits for a free one.
// What a form (layout, part, codecs) needs to be coded, tables and lists of tasks for each lane, is made when
// the form is first seen and kept for the last few forms.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "services/store/engine/device.h"

namespace quire::store {

struct CudaDeviceOptions {
  int lanes = 3;
  // Raw KV on its way from or to the host, of each lane, on the device and page-locked on the host. Blocks
  // whose raw form is larger are coded by the host.
  uint64_t staging_bytes = uint64_t{64} << 20;
  uint32_t batch_blocks = 64;  // coded at once, at most
};

class CudaDevice : public Device {
 public:
  // The current device (CUDA_VISIBLE_DEVICES chooses). NOT_FOUND where there is none, RESOURCE_EXHAUSTED
  // where it has not the memory.
  static absl::StatusOr<std::shared_ptr<CudaDevice>> Create(const CudaDeviceOptions& options = {});
  ~CudaDevice() override;

  absl::StatusOr<std::shared_ptr<uint8_t>> Allocate(uint64_t bytes) override;
  absl::StatusOr<std::shared_ptr<const void>> PinHost(MutableBytes memory) override;
  absl::Status CopyAll(std::span<const Copy> copies) override;
  absl::StatusOr<uint64_t> EncodedBytes(const CodedForm& form, const CodecSpec& spec, DType dtype,
                                        bool first_block) override;
  void Encode(const CodedForm& form, const CodecSpec& spec, DType dtype, std::span<EncodeJob> jobs) override;
  void Decode(const CodedForm& form, uint32_t layer_begin, uint32_t layer_end, DType dtype,
              std::span<DecodeJob> jobs) override;
  absl::StatusOr<std::shared_ptr<uint8_t>> Open(const DeviceBufferName& buffer) override;

  // What another process needs to open a buffer of this one: its first byte. For clients.
  static absl::StatusOr<DeviceBufferName> Share(const uint8_t* buffer, uint64_t bytes);

 private:
  struct Impl;
  explicit CudaDevice(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire::store

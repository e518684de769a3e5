// A device that has memory of its own and codes there, as the engine sees it. services/store/gpu has the one
// that is a GPU; builds without CUDA have none.
//
// Pointers "on the device" are never followed by the host: they go back to the device that they came from.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/bytes.h"
#include "core/block/object.h"
#include "core/codec/spec.h"

namespace quire::store {

// Memory of another process on the same device, as it names it.
struct DeviceBufferName {
  std::string ipc_handle;
  uint64_t offset = 0;  // within the allocation that the handle is of
  uint64_t bytes = 0;
  std::string device_uuid;
};

// What blocks of one call have in common.
struct CodedForm {
  const Layout* layout = nullptr;
  Digest fingerprint;  // the layout's
  Part part;           // of the objects
};

// Thread-safe. Every call returns when its work is done, not before. Nothing is allocated in a call, but for
// the tables and lists of a form that it has not coded before (or not for long).
class Device {
 public:
  // Bytes [to, to + bytes) become [from, from + bytes): on the host, on the device, or one of each. They do
  // not overlap.
  struct Copy {
    const uint8_t* from = nullptr;
    uint8_t* to = nullptr;
    uint64_t bytes = 0;
  };
  // The raw form of a block (engine/raw_form.h) becomes an object.
  struct EncodeJob {
    BlockIdentity identity;
    const uint8_t* raw = nullptr;  // 16-byte aligned
    bool raw_on_device = false;
    uint8_t* object = nullptr;  // on the device, of EncodedBytes, 16-byte aligned
    BlockHeader header;         // out
    absl::Status status;        // out: INVALID_ARGUMENT for a NaN or an infinity
  };
  // Layers [layer_begin, layer_end) of an object's part, in their raw form.
  struct DecodeJob {
    const BlockHeader* header = nullptr;
    int levels = 1;
    const uint8_t* object = nullptr;  // on the device
    uint8_t* out = nullptr;           // 16-byte aligned
    bool out_on_device = false;
    absl::Status status;  // out
  };

  virtual ~Device() = default;

  // Memory of the device, 256-byte aligned, freed with its last owner. RESOURCE_EXHAUSTED naming what is
  // wanted and what is left.
  virtual absl::StatusOr<std::shared_ptr<uint8_t>> Allocate(uint64_t bytes) = 0;
  // Page-locks host memory for as long as the result lives, so that copies go at the link's speed.
  virtual absl::StatusOr<std::shared_ptr<const void>> PinHost(MutableBytes memory) = 0;
  // In order, one after the other.
  virtual absl::Status CopyAll(std::span<const Copy> copies) = 0;

  // UNIMPLEMENTED for what the device does not code (the host then does), or a block too large for it.
  virtual absl::StatusOr<uint64_t> EncodedBytes(const CodedForm& form, const CodecSpec& spec, DType dtype,
                                                bool first_block) = 0;
  // Each job has its own outcome. REQUIRES: EncodedBytes was OK.
  virtual void Encode(const CodedForm& form, const CodecSpec& spec, DType dtype,
                      std::span<EncodeJob> jobs) = 0;
  // UNIMPLEMENTED as above, in a job's status.
  virtual void Decode(const CodedForm& form, uint32_t layer_begin, uint32_t layer_end, DType dtype,
                      std::span<DecodeJob> jobs) = 0;

  // Memory that another process shares: there until the last owner lets go, whatever becomes of that process.
  // INVALID_ARGUMENT for a malformed name or more than its allocation has, FAILED_PRECONDITION for another
  // device's or none of this machine's.
  virtual absl::StatusOr<std::shared_ptr<uint8_t>> Open(const DeviceBufferName& buffer) = 0;
};

}  // namespace quire::store

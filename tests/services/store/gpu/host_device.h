// A device whose memory is the host's and whose kernels are the host's codec, so that all that is not CUDA is
// tested without a GPU. It knows which memory it gave out and fails where the host's is passed as its own.
#pragma once

#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/store/engine/device.h"
#include "services/store/engine/raw_form.h"

namespace quire::store {

class HostDevice : public Device {
 public:
  explicit HostDevice(uint64_t memory = uint64_t{1} << 30) : memory_(memory) {}

  absl::StatusOr<std::shared_ptr<uint8_t>> Allocate(uint64_t bytes) override {
    std::lock_guard lock(mu_);
    if (bytes > memory_ - used_) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the device has ", memory_ - used_, " bytes left, not ", bytes));
    }
    used_ += bytes;
    auto* data = static_cast<uint8_t*>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
    allocations_[data] = bytes;
    return std::shared_ptr<uint8_t>(data, [this, bytes](uint8_t* p) {
      std::lock_guard lock(mu_);
      used_ -= bytes;
      allocations_.erase(p);
      std::free(p);
    });
  }
  absl::StatusOr<std::shared_ptr<const void>> PinHost(MutableBytes memory) override {
    pinned_ += memory.size();
    return std::shared_ptr<const void>(memory.data(),
                                       [this, n = memory.size()](const void*) { pinned_ -= n; });
  }
  absl::Status CopyAll(std::span<const Copy> copies) override {
    if (fail_copies) return absl::InternalError("the device is broken");
    for (const Copy& copy : copies) {
      if (copy.from < copy.to + copy.bytes && copy.to < copy.from + copy.bytes)
        return absl::InternalError("a copy onto itself");
      std::memcpy(copy.to, copy.from, copy.bytes);
      ++copied;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<uint64_t> EncodedBytes(const CodedForm& form, const CodecSpec& spec, DType,
                                        bool first_block) override {
    std::vector<LayerCodec> codecs = LayerCodecs(spec, *form.layout, form.part);
    for (const LayerCodec& codec : codecs) {
      if (codec.codec == CodecId::kTqProd) return absl::UnimplementedError("this device has no tq_prod");
    }
    auto map = SliceMap::Create(*form.layout, form.part, codecs, first_block ? kMaxSinkTokens : 0);
    if (!map.ok()) return map.status();
    return map->ObjectBytes(map->levels());
  }
  void Encode(const CodedForm& form, const CodecSpec& spec, DType dtype, std::span<EncodeJob> jobs) override {
    largest_batch = std::max<size_t>(largest_batch, jobs.size());
    for (EncodeJob& job : jobs) {
      if (job.raw_on_device != Owns(job.raw) || !Owns(job.object)) {
        job.status = absl::InternalError("a pointer of the wrong side");
        continue;
      }
      std::shared_ptr<const BlockCodec> codec = *BlockCodec::Create(*form.layout, form.part);
      std::vector<uint8_t> object;
      job.status =
          codec->Encode(spec, job.identity, RawFormViews(*form.layout, form.part, dtype, job.raw), &object);
      if (!job.status.ok()) continue;
      job.header = *ParseHeader(object);
      std::copy(object.begin(), object.end(), job.object);
      ++encoded;
    }
  }
  void Decode(const CodedForm& form, uint32_t layer_begin, uint32_t layer_end, DType dtype,
              std::span<DecodeJob> jobs) override {
    for (DecodeJob& job : jobs) {
      if (job.out_on_device != Owns(job.out) || !Owns(job.object)) {
        job.status = absl::InternalError("a pointer of the wrong side");
        continue;
      }
      auto codec = *BlockCodec::Create(*form.layout, form.part);
      uint64_t bytes = job.header->levels[static_cast<size_t>(job.levels) - 1].end();
      auto reader = BlockReader::OpenAny(codec, {job.object, bytes});
      job.status = reader.status();
      uint8_t* out = job.out;
      for (uint32_t l = layer_begin; l < layer_end && job.status.ok(); ++l) {
        job.status =
            reader->DecodeLayer(l, job.levels, RawMutableLayerView(*form.layout, form.part, l, dtype, out));
        out += RawLayerBytes(*form.layout, form.part, l, dtype);
      }
      ++decoded;
    }
  }
  // A "handle" of 64 bytes of what Share made.
  absl::StatusOr<std::shared_ptr<uint8_t>> Open(const DeviceBufferName& name) override {
    if (name.ipc_handle.size() != 64) return absl::InvalidArgumentError("a handle has 64 bytes");
    if (name.device_uuid != std::string(16, 'u'))
      return absl::FailedPreconditionError("the buffer is on another device");
    std::lock_guard lock(mu_);
    auto it = shared_.find(name.ipc_handle);
    if (it == shared_.end()) return absl::FailedPreconditionError("no such memory");
    if (name.offset > it->second.second || name.bytes > it->second.second - name.offset)
      return absl::InvalidArgumentError("the buffer ends past its allocation");
    ++opened;
    return std::shared_ptr<uint8_t>(it->second.first.get() + name.offset,
                                    [this, keep = it->second.first](uint8_t*) { --opened; });
  }
  std::string Share(std::shared_ptr<uint8_t> memory, uint64_t bytes) {
    std::lock_guard lock(mu_);
    std::string handle(64, static_cast<char>('a' + shared_.size()));
    shared_[handle] = {std::move(memory), bytes};
    return handle;
  }
  void Unshare() {
    std::map<std::string, std::pair<std::shared_ptr<uint8_t>, uint64_t>> gone;
    std::lock_guard lock(mu_);
    gone.swap(shared_);
  }

  uint64_t pinned() const { return pinned_; }
  bool Owns(const uint8_t* p) const {
    std::lock_guard lock(mu_);
    auto it = allocations_.upper_bound(const_cast<uint8_t*>(p));
    return it != allocations_.begin() && p < std::prev(it)->first + std::prev(it)->second;
  }

  std::atomic<bool> fail_copies{false};
  std::atomic<uint64_t> copied{0}, encoded{0}, decoded{0};
  std::atomic<int> opened{0};
  std::atomic<size_t> largest_batch{0};

 private:
  const uint64_t memory_;
  mutable std::mutex mu_;  // guards all below
  uint64_t used_ = 0;
  std::map<uint8_t*, uint64_t> allocations_;
  std::map<std::string, std::pair<std::shared_ptr<uint8_t>, uint64_t>> shared_;
  std::atomic<uint64_t> pinned_{0};
};

}  // namespace quire::store

// What blocks of one form need to be coded on a GPU, and the last few forms seen.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "cuda/block_batch.h"
#include "cuda/checksum.h"
#include "cuda/memory.h"
#include "cuda/tq_batch.h"
#include "services/store/engine/device.h"

namespace quire::store {

// A layout, a part and codecs: the tables of their kernels, and lists of tasks, a set for each lane, made
// when the lane first codes the form. Thread-safe, but for what one lane uses.
class GpuForm {
 public:
  static absl::StatusOr<std::shared_ptr<GpuForm>> Create(const CodedForm& form,
                                                         std::vector<LayerCodec> codecs, int lanes,
                                                         uint32_t batch_blocks);

  const cuda::BlockShape& shape() const { return shape_; }
  const Digest& fingerprint() const { return fingerprint_; }
  bool Is(const CodedForm& form, const std::vector<LayerCodec>& codecs) const {
    return fingerprint_ == form.fingerprint && shape_.part() == form.part && shape_.codecs() == codecs;
  }

  struct Lists {
    cuda::TqBatch batch;
    cuda::BlockTasks tasks;
    std::vector<cuda::TqBatch::Range> ranges;  // a block's part of the batch
    // Encoding only. Pinned: headers, checksums of each block, where objects are.
    cuda::PinnedBuffer headers, checksums, objects;
  };
  // REQUIRES: the caller has the lane.
  absl::StatusOr<Lists*> EncodeLists(int lane);
  absl::StatusOr<Lists*> DecodeLists(int lane);
  // The room of one header in Lists::headers, of one block's checksums in Lists::checksums.
  size_t header_pitch() const { return header_pitch_; }
  size_t checksum_pitch() const { return checksum_pitch_; }

  // Enqueues the checksums of `count` objects, all of them a sequence's first block or none.
  absl::Status LaunchChecksums(cuda::StreamRef stream, bool first_block, const Lists& lists, size_t from,
                               size_t count) const;

 private:
  GpuForm(cuda::BlockShape shape, std::shared_ptr<const cuda::TqCodec> codec, cuda::SliceChecksums first,
          cuda::SliceChecksums other)
      : shape_(std::move(shape)),
        codec_(std::move(codec)),
        first_(std::move(first)),
        other_(std::move(other)) {}

  cuda::BlockShape shape_;
  Digest fingerprint_;
  std::shared_ptr<const cuda::TqCodec> codec_;
  cuda::SliceChecksums first_, other_;
  uint32_t batch_blocks_ = 0;
  size_t header_pitch_ = 0, checksum_pitch_ = 0;
  std::vector<std::unique_ptr<Lists>> encode_, decode_;  // by lane
};

// Thread-safe.
class GpuForms {
 public:
  GpuForms(int lanes, uint32_t batch_blocks) : lanes_(lanes), batch_blocks_(batch_blocks) {}
  absl::StatusOr<std::shared_ptr<GpuForm>> Get(const CodedForm& form, const std::vector<LayerCodec>& codecs);

 private:
  static constexpr size_t kKept = 16;
  const int lanes_;
  const uint32_t batch_blocks_;
  std::mutex mu_;                              // guards forms_
  std::list<std::shared_ptr<GpuForm>> forms_;  // the last used first
};

}  // namespace quire::store

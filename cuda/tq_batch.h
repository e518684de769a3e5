// Encoding and decoding many heads of many blocks and layers on the device, with `tq`, `fp8` or `tq_prod`:
// one launch a shape, whatever the number of blocks. The bytes are those of core/block's objects; a block
// coded here and one coded by core/codec can stand in one chain.
//
//   TqCodec   the constants of one rotation seed on one device; made once, shared
//   TqBatch   a list of tasks with its memory on both sides, used again and again; cuda/block_batch.h fills
//   it from whole blocks
//
// Nothing here waits for the device, except where it says so. Not for a device: raw layers whose tensors are
// not of the layout's type. Checksums and headers are the host's business.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/dtype.h"
#include "core/codec/spec.h"
#include "cuda/memory.h"
#include "cuda/stream.h"
#include "cuda/tq_task.h"

namespace quire::cuda {

// Immutable and thread-safe after Create.
class TqCodec {
 public:
  // Allocates and fills the tables of these head sizes on the current device, and waits for that.
  // INVALID_ARGUMENT for a head size that the codec does not have, UNIMPLEMENTED for one that the device has
  // too little shared memory for.
  // `projected` names those that tq_prod is wanted for: 4·d² bytes each. fp8 needs no tables.
  static absl::StatusOr<std::shared_ptr<const TqCodec>> Create(uint64_t seed, std::span<const uint32_t> dims,
                                                               std::span<const uint32_t> projected = {});
  ~TqCodec();

  uint64_t seed() const;
  const DeviceInfo& device() const;
  // Bytes of device memory that the tables take.
  size_t table_bytes() const;

 private:
  friend class TqBatch;
  struct Impl;
  explicit TqCodec(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// A task and the shape that its kernel is chosen by. `place` names it in messages: the layer, and the first
// head.
struct ShapedTask {
  TqTask task;
  CodecId codec = CodecId::kTq;  // or kFp8, kTqProd
  uint32_t dim = 0, heads = 0;
  DType dtype = DType::kBf16;
  uint32_t layer = 0, first_head = 0;
};

// One batch: set, run, wait, look at the reports, set again. Not thread-safe. Memory: 128 bytes a task and 32
// a report, on the device and pinned on the host, allocated by Create and never again.
class TqBatch {
 public:
  enum class Direction { kEncode, kDecode };
  // The limits are those of one Set: tasks, their heads together, and layers with raw rows.
  struct Limits {
    uint32_t tasks = 0, reports = 0, rows = 0;
  };
  static absl::StatusOr<TqBatch> Create(std::shared_ptr<const TqCodec> codec, Direction direction,
                                        const Limits& limits);
  TqBatch(TqBatch&&) noexcept;
  TqBatch& operator=(TqBatch&&) noexcept;
  ~TqBatch();

  // Replaces the tasks. Checks every shape: INVALID_ARGUMENT naming the task, the field, the limit and the
  // value; RESOURCE_EXHAUSTED over a limit. Reports are given out in the order of the tasks, one a head;
  // `report` fields are set by this. Of the spec an encoder takes the effort. REQUIRES: the device is
  // done with the last Run.
  absl::Status Set(std::span<const ShapedTask> tasks, std::span<const RowsTask> rows, const CodecSpec& spec);

  // Enqueues the upload of the tasks (once after each Set), the kernels, and for an encoder the download of
  // the reports.
  absl::Status Run(StreamRef stream);
  // The kernels alone. REQUIRES: a Run before it on the same stream, or an Upload.
  absl::Status Upload(StreamRef stream);
  absl::Status Launch(StreamRef stream) const;

  // REQUIRES (encoder): the stream of the last Run has come past it.
  const TqReport& report(size_t task, uint32_t head) const;
  const TqReport& row_report(size_t row, uint32_t head) const;
  // INVALID_ARGUMENT naming layer, head and token of the first vector with a NaN or an infinity.
  absl::Status CheckReports() const;
  // Of some tasks and raw rows alone: those of one block.
  struct Range {
    size_t first_task = 0, tasks = 0, first_row = 0, rows = 0;
  };
  absl::Status CheckReports(const Range& range) const;

  // Bytes that the lists take, on the device and once more pinned on the host.
  size_t memory_bytes() const;

  // How many kernels a Run launches, and how many tasks go to the fast ones (of fp8: those whose rows stand
  // on 16 bytes).
  size_t launches() const;
  size_t fast_tasks() const;

 private:
  struct Impl;
  explicit TqBatch(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire::cuda

#include "cuda/tq_batch.h"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/codec/codebook.h"
#include "core/codec/tq.h"
#include "cuda/check.h"
#include "cuda/flat_kernels.h"
#include "cuda/tq_kernels.h"
#include "cuda/tq_tables.h"

namespace quire::cuda {
namespace {

// What one head size needs on the device.
struct DimEntry {
  DeviceBuffer table, bf16_image, f16_image, decode_image, projection;
  FastEncodeTable encode;
  FastDecodeTable decode;
  bool fast = false;
};

absl::StatusOr<DeviceBuffer> Upload(const void* host, size_t bytes) {
  QUIRE_ASSIGN_OR_RETURN(DeviceBuffer buffer, DeviceBuffer::Allocate(bytes));
  QUIRE_CUDA_RETURN_IF_ERROR(cudaMemcpy(buffer.data(), host, bytes, cudaMemcpyHostToDevice));
  return buffer;
}

absl::StatusOr<DeviceBuffer> Upload(const std::vector<uint16_t>& image) {
  return Upload(image.data(), image.size() * 2);
}

bool On16Bytes(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// A run of tasks that one launch takes.
struct Group {
  CodecId codec = CodecId::kTq;
  uint32_t dim = 0, heads = 0, first = 0, count = 0;
  DType dtype = DType::kBf16;
  bool fast = false;
  int effort = 0;  // of an encoder
};

}  // namespace

struct TqCodec::Impl {
  uint64_t seed = 0;
  DeviceInfo device;
  std::map<uint32_t, DimEntry> dims;
};

TqCodec::TqCodec(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TqCodec::~TqCodec() = default;
uint64_t TqCodec::seed() const { return impl_->seed; }
const DeviceInfo& TqCodec::device() const { return impl_->device; }

size_t TqCodec::table_bytes() const {
  size_t bytes = 0;
  for (const auto& [dim, entry] : impl_->dims) {
    for (const DeviceBuffer* buffer :
         {&entry.table, &entry.bf16_image, &entry.f16_image, &entry.decode_image, &entry.projection})
      bytes += buffer->bytes();
  }
  return bytes;
}

absl::StatusOr<std::shared_ptr<const TqCodec>> TqCodec::Create(uint64_t seed, std::span<const uint32_t> dims,
                                                               std::span<const uint32_t> projected) {
  auto impl = std::make_unique<Impl>();
  impl->seed = seed;
  QUIRE_ASSIGN_OR_RETURN(impl->device, CurrentDevice());
  for (uint32_t dim : dims) {
    if (!IsCodecDim(dim)) {
      return absl::InvalidArgumentError(absl::StrCat("tq: head size ", dim, " is not a multiple of 16 from ",
                                                     kMinCodecDim, " to ", kMaxCodecDim));
    }
    size_t needed = std::max(EncodeSharedBytes(dim), DecodeSharedBytes(dim));
    if (needed > impl->device.shared_bytes) {
      return absl::UnimplementedError(absl::StrCat("tq: head size ", dim, " needs ", needed,
                                                   " bytes of shared memory, this device has ",
                                                   impl->device.shared_bytes));
    }
    if (impl->dims.contains(dim)) continue;
    DimEntry& entry = impl->dims[dim];
    auto table = std::make_unique<DimTable>(MakeDimTable(dim, seed));
    QUIRE_ASSIGN_OR_RETURN(entry.table, cuda::Upload(table.get(), sizeof(DimTable)));
    entry.fast = IsFastDim(dim) && impl->device.major == 9 && impl->device.minor == 0;
    if (!entry.fast) continue;
    entry.encode = MakeFastEncodeTable(dim);
    entry.decode = MakeFastDecodeTable(dim);
    QUIRE_ASSIGN_OR_RETURN(entry.bf16_image, cuda::Upload(EncodeImage(dim, seed, DType::kBf16)));
    QUIRE_ASSIGN_OR_RETURN(entry.f16_image, cuda::Upload(EncodeImage(dim, seed, DType::kF16)));
    QUIRE_ASSIGN_OR_RETURN(entry.decode_image, cuda::Upload(DecodeImage(dim, seed)));
  }
  for (uint32_t dim : projected) {
    auto found = impl->dims.find(dim);
    if (found == impl->dims.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tq_prod: head size ", dim, " is not among those that the codec is made for"));
    }
    if (size_t needed = ProdSharedBytes(dim); needed > impl->device.shared_bytes) {
      return absl::UnimplementedError(absl::StrCat("tq_prod: head size ", dim, " needs ", needed,
                                                   " bytes of shared memory, this device has ",
                                                   impl->device.shared_bytes));
    }
    std::vector<uint8_t> table = MakeProjectionTable(dim, seed);
    QUIRE_ASSIGN_OR_RETURN(found->second.projection, cuda::Upload(table.data(), table.size()));
  }
  return std::shared_ptr<const TqCodec>(new TqCodec(std::move(impl)));
}

struct TqBatch::Impl {
  std::shared_ptr<const TqCodec> codec;
  Direction direction = Direction::kEncode;
  Limits limits;
  PinnedBuffer host;    // tasks, rows, reports
  DeviceBuffer device;  // the same
  size_t rows_at = 0, reports_at = 0;

  std::vector<ShapedTask> tasks;  // as given, with their reports set
  std::vector<RowsTask> rows;     // the same
  std::vector<Group> groups;
  uint32_t reports = 0, max_row_heads = 0;
  CodecSpec spec;
  bool uploaded = false;

  bool encode() const { return direction == Direction::kEncode; }
  const DimEntry& entry(uint32_t dim) const { return codec->impl_->dims.at(dim); }
  TqReport* host_reports() const { return reinterpret_cast<TqReport*>(host.data() + reports_at); }
  TqReport* device_reports() const { return reinterpret_cast<TqReport*>(device.data() + reports_at); }

  absl::Status Check(size_t index, const ShapedTask& shaped) const;
  absl::Status CheckTq(const ShapedTask& shaped) const;
  absl::Status CheckFlat(const ShapedTask& shaped) const;
  cudaError_t LaunchTq(const Group& group, cudaStream_t stream) const;
  cudaError_t LaunchFlat(const Group& group, cudaStream_t stream) const;
  bool IsFast(const ShapedTask& shaped) const;
  void FillHost();
};

TqBatch::TqBatch(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TqBatch::TqBatch(TqBatch&&) noexcept = default;
TqBatch& TqBatch::operator=(TqBatch&&) noexcept = default;
TqBatch::~TqBatch() = default;

absl::StatusOr<TqBatch> TqBatch::Create(std::shared_ptr<const TqCodec> codec, Direction direction,
                                        const Limits& limits) {
  auto impl = std::make_unique<Impl>();
  impl->codec = std::move(codec);
  impl->direction = direction;
  impl->limits = limits;
  auto round_up = [](size_t n) { return (n + 255) / 256 * 256; };
  impl->rows_at = round_up(limits.tasks * sizeof(TqTask));
  impl->reports_at = impl->rows_at + round_up(limits.rows * sizeof(RowsTask));
  size_t bytes = impl->reports_at + (direction == Direction::kEncode ? limits.reports * sizeof(TqReport) : 0);
  QUIRE_ASSIGN_OR_RETURN(impl->host, PinnedBuffer::Allocate(bytes));
  QUIRE_ASSIGN_OR_RETURN(impl->device, DeviceBuffer::Allocate(bytes));
  return TqBatch(std::move(impl));
}

template <typename... What>
absl::Status Bad(const What&... what) {
  return absl::InvalidArgumentError(absl::StrCat(what...));
}

absl::Status TqBatch::Impl::CheckTq(const ShapedTask& shaped) const {
  const TqTask& task = shaped.task;
  if (!codec->impl_->dims.contains(shaped.dim))
    return Bad("the codec was not made for head size ", shaped.dim);
  if (task.bits < kMinBits || task.bits > kMaxCodeBits)
    return Bad("2 to 8 bits, not ", static_cast<int>(task.bits));
  if (task.levels < 1 || task.levels > kTaskLevels)
    return Bad("1 to 4 levels, not ", static_cast<int>(task.levels));
  if (task.scalars == nullptr || (task.kind != 1 && task.mean == nullptr))
    return Bad("no place for the scalars or the mean");
  for (int level = 0; level < (encode() ? kTaskLevels : task.levels); ++level) {
    if (!HasLevel(task.bits, level)) continue;
    bool scales = task.kind != 1 || level == 0 || level == 3;
    if (task.planes[level] == nullptr || (scales && task.scales[level] == nullptr))
      return Bad("no place for level ", level);
    if (!On16Bytes(task.planes[level]) || !On16Bytes(task.scales[level]) ||
        task.slice_stride[level] % 16 != 0) {
      return Bad("the slices of level ", level, " do not stand on 16 bytes");
    }
  }
  if (!On16Bytes(task.scalars) || !On16Bytes(task.mean))
    return Bad("the slices of level 0 do not stand on 16 bytes");
  return absl::OkStatus();
}

absl::Status TqBatch::Impl::CheckFlat(const ShapedTask& shaped) const {
  const TqTask& task = shaped.task;
  bool prod = shaped.codec == CodecId::kTqProd;
  if (!IsCodecDim(shaped.dim)) {
    return Bad("head size ", shaped.dim, " is not a multiple of 16 from ", kMinCodecDim, " to ",
               kMaxCodecDim);
  }
  if (task.levels != 1) return Bad("one level, not ", static_cast<int>(task.levels));
  int planes = 1;
  if (prod) {
    auto found = codec->impl_->dims.find(shaped.dim);
    if (found == codec->impl_->dims.end() || found->second.projection.data() == nullptr)
      return Bad("the codec was made without the projection of head size ", shaped.dim);
    if (task.bits < kMinBits || task.bits > kMaxCodeBits)
      return Bad("2 to 8 bits, not ", static_cast<int>(task.bits));
    planes = std::min(task.bits - 1, kTaskLevels);
  }
  for (int i = 0; i < planes; ++i) {
    if (task.planes[i] == nullptr) return Bad("no place for the codes");
    if (!On16Bytes(task.planes[i]) || task.slice_stride[i] % 16 != 0)
      return Bad("the codes do not stand on 16 bytes");
  }
  for (int i = 0; i < (prod ? 2 : 1); ++i) {
    if (task.scales[i] == nullptr) return Bad("no place for the scales or the rests");
    if (!On16Bytes(task.scales[i]) || task.slice_stride[i] % 16 != 0)
      return Bad("the scales or the rests do not stand on 16 bytes");
  }
  return absl::OkStatus();
}

absl::Status TqBatch::Impl::Check(size_t index, const ShapedTask& shaped) const {
  const TqTask& task = shaped.task;
  bool flat = shaped.codec == CodecId::kFp8 || shaped.codec == CodecId::kTqProd;
  absl::Status status = flat ? CheckFlat(shaped)
                        : shaped.codec == CodecId::kTq
                            ? CheckTq(shaped)
                            : Bad("the device does not code ", std::string(Name(shaped.codec)));
  if (status.ok()) {
    if (task.kind > 2) {
      status = Bad("stream kind ", static_cast<int>(task.kind), " is unknown");
    } else if (task.first_token >= kTqTokens) {
      status = Bad("at most 63 sinks, not ", static_cast<int>(task.first_token));
    } else if (task.tensor == nullptr) {
      status = Bad("no tensor");
    } else if (reinterpret_cast<uintptr_t>(task.tensor) % SizeOf(shaped.dtype) != 0) {
      status = Bad("the tensor is not aligned to its elements");
    }
  }
  if (status.ok()) return status;
  return Bad("tq batch: task ", index, ": ", std::string(status.message()));
}

bool TqBatch::Impl::IsFast(const ShapedTask& shaped) const {
  const TqTask& task = shaped.task;
  if (shaped.codec == CodecId::kTqProd) return false;
  int64_t unit = 16 / static_cast<int64_t>(SizeOf(shaped.dtype));
  if (!On16Bytes(task.tensor) || task.token_stride % unit != 0 || task.head_stride % unit != 0) return false;
  if (shaped.codec == CodecId::kFp8) return true;
  if (!entry(shaped.dim).fast) return false;
  return encode() ? shaped.dtype != DType::kF32 && spec.effort(task.bits) == 0 && task.bits <= 4
                  : KeptBits(task.bits, task.levels - 1) <= 4;
}

absl::Status TqBatch::Set(std::span<const ShapedTask> tasks, std::span<const RowsTask> rows,
                          const CodecSpec& spec) {
  Impl& impl = *impl_;
  if (tasks.size() > impl.limits.tasks || rows.size() > impl.limits.rows) {
    return absl::ResourceExhaustedError(absl::StrCat("tq batch: ", tasks.size(), " tasks and ", rows.size(),
                                                     " layers of raw rows; made for ", impl.limits.tasks,
                                                     " and ", impl.limits.rows));
  }
  for (size_t i = 0; i < tasks.size(); ++i) QUIRE_RETURN_IF_ERROR(impl.Check(i, tasks[i]));
  uint64_t reports = 0;
  for (const ShapedTask& shaped : tasks) reports += shaped.heads;
  for (const RowsTask& task : rows) reports += task.heads;
  if (impl.encode() && reports > impl.limits.reports) {
    return absl::ResourceExhaustedError(
        absl::StrCat("tq batch: ", reports, " heads; made for ", impl.limits.reports));
  }
  impl.tasks.assign(tasks.begin(), tasks.end());
  impl.rows.assign(rows.begin(), rows.end());
  impl.spec = spec;
  impl.reports = static_cast<uint32_t>(reports);
  impl.FillHost();
  return absl::OkStatus();
}

// Gives out the reports, and puts the tasks into the pinned memory in runs of one shape. One shape is the
// common case: then the order stays.
void TqBatch::Impl::FillHost() {
  uint32_t next = 0;
  for (ShapedTask& shaped : tasks) next = (shaped.task.report = next) + shaped.heads;
  max_row_heads = 0;
  for (RowsTask& task : rows) {
    next = (task.report = next) + task.heads;
    max_row_heads = std::max(max_row_heads, task.heads);
  }
  std::vector<uint32_t> order;
  for (uint32_t i = 0; i < tasks.size(); ++i) {
    if (tasks[i].heads > 0) order.push_back(i);
  }
  auto shape = [&](uint32_t i) {
    return std::tuple(tasks[i].codec, tasks[i].dim, tasks[i].heads, static_cast<int>(tasks[i].dtype),
                      IsFast(tasks[i]), spec.effort(tasks[i].task.bits));
  };
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return shape(a) < shape(b); });
  groups.clear();
  auto* out = reinterpret_cast<TqTask*>(host.data());
  for (uint32_t i = 0; i < order.size(); ++i) {
    const ShapedTask& shaped = tasks[order[i]];
    if (i == 0 || shape(order[i]) != shape(order[i - 1])) {
      groups.push_back({shaped.codec, shaped.dim, shaped.heads, i, 0, shaped.dtype, IsFast(shaped),
                        spec.effort(shaped.task.bits)});
    }
    ++groups.back().count;
    out[i] = shaped.task;
  }
  if (!rows.empty()) std::memcpy(host.data() + rows_at, rows.data(), rows.size() * sizeof(RowsTask));
  uploaded = false;
}

absl::Status TqBatch::Upload(StreamRef stream) {
  Impl& impl = *impl_;
  size_t task_bytes = impl.tasks.size() * sizeof(TqTask), row_bytes = impl.rows.size() * sizeof(RowsTask);
  if (task_bytes > 0)
    QUIRE_RETURN_IF_ERROR(CopyToDevice(stream, impl.host.data(), task_bytes, impl.device.data()));
  if (row_bytes > 0) {
    QUIRE_RETURN_IF_ERROR(
        CopyToDevice(stream, impl.host.data() + impl.rows_at, row_bytes, impl.device.data() + impl.rows_at));
  }
  impl.uploaded = true;
  return absl::OkStatus();
}

cudaError_t TqBatch::Impl::LaunchTq(const Group& group, cudaStream_t stream) const {
  const DimEntry& entry = this->entry(group.dim);
  TqLaunch launch;
  launch.tasks = reinterpret_cast<const TqTask*>(device.data()) + group.first;
  launch.count = group.count;
  launch.heads = group.heads;
  launch.dim = group.dim;
  launch.type = group.dtype;
  launch.table = reinterpret_cast<const DimTable*>(entry.table.data());
  launch.reports = device_reports();
  launch.multiprocessors = codec->device().multiprocessors;
  if (encode()) {
    launch.image = (group.dtype == DType::kBf16 ? entry.bf16_image : entry.f16_image).data();
    return group.fast ? LaunchFastEncode(launch, entry.encode, stream)
                      : LaunchEncode(launch, group.effort, stream);
  }
  launch.image = entry.decode_image.data();
  return group.fast ? LaunchFastDecode(launch, entry.decode, stream) : LaunchDecode(launch, stream);
}

cudaError_t TqBatch::Impl::LaunchFlat(const Group& group, cudaStream_t stream) const {
  FlatLaunch launch;
  launch.tasks = reinterpret_cast<const TqTask*>(device.data()) + group.first;
  launch.count = group.count;
  launch.heads = group.heads;
  launch.dim = group.dim;
  launch.type = group.dtype;
  launch.aligned = group.fast;
  launch.reports = device_reports();
  if (group.codec == CodecId::kFp8)
    return encode() ? LaunchEncodeFp8(launch, stream) : LaunchDecodeFp8(launch, stream);
  const DimEntry& entry = this->entry(group.dim);
  launch.table = reinterpret_cast<const DimTable*>(entry.table.data());
  launch.projection = reinterpret_cast<const ProjectionTable*>(entry.projection.data());
  return encode() ? LaunchEncodeProd(launch, stream) : LaunchDecodeProd(launch, stream);
}

absl::Status TqBatch::Launch(StreamRef stream) const {
  const Impl& impl = *impl_;
  auto handle = static_cast<cudaStream_t>(stream.handle);
  for (const Group& group : impl.groups) {
    QUIRE_CUDA_RETURN_IF_ERROR(group.codec == CodecId::kTq ? impl.LaunchTq(group, handle)
                                                           : impl.LaunchFlat(group, handle));
  }
  if (!impl.rows.empty() && impl.max_row_heads > 0) {
    auto* rows = reinterpret_cast<const RowsTask*>(impl.device.data() + impl.rows_at);
    auto count = static_cast<uint32_t>(impl.rows.size());
    QUIRE_CUDA_RETURN_IF_ERROR(
        impl.encode() ? LaunchStoreRows(rows, count, impl.max_row_heads, impl.device_reports(), handle)
                      : LaunchLoadRows(rows, count, impl.max_row_heads, handle));
  }
  return absl::OkStatus();
}

absl::Status TqBatch::Run(StreamRef stream) {
  if (!impl_->uploaded) QUIRE_RETURN_IF_ERROR(Upload(stream));
  QUIRE_RETURN_IF_ERROR(Launch(stream));
  if (!impl_->encode() || impl_->reports == 0) return absl::OkStatus();
  return CopyToHost(stream, impl_->device_reports(), impl_->reports * sizeof(TqReport),
                    impl_->host_reports());
}

const TqReport& TqBatch::report(size_t task, uint32_t head) const {
  return impl_->host_reports()[impl_->tasks[task].task.report + head];
}
const TqReport& TqBatch::row_report(size_t row, uint32_t head) const {
  return impl_->host_reports()[impl_->rows[row].report + head];
}

absl::Status TqBatch::CheckReports() const {
  return CheckReports(Range{0, impl_->tasks.size(), 0, impl_->rows.size()});
}

absl::Status TqBatch::CheckReports(const Range& range) const {
  static constexpr const char* kNames[] = {"K", "V", "K"};
  for (size_t i = range.first_task; i < range.first_task + range.tasks; ++i) {
    const ShapedTask& shaped = impl_->tasks[i];
    for (uint32_t h = 0; h < shaped.heads; ++h) {
      if (int bad = report(i, h).bad_token; bad >= 0) {
        return absl::InvalidArgumentError(absl::StrCat(
            "layer ", shaped.layer, ", head ", shaped.first_head + h, ", token ", bad, ": ",
            kNames[shaped.task.kind], " has a NaN, an infinity or a norm beyond the codec's range"));
      }
    }
  }
  for (size_t i = range.first_row; i < range.first_row + range.rows; ++i) {
    const RowsTask& task = impl_->rows[i];
    for (uint32_t h = 0; h < task.heads; ++h) {
      if (const TqReport& report = row_report(i, h); report.bad_token >= 0) {
        return absl::InvalidArgumentError(
            absl::StrCat("layer ", task.layer, ", head ", task.first_head + h, ", token ", report.bad_token,
                         ": ", report.bad_value ? "V" : "K", " has a NaN or an infinity"));
      }
    }
  }
  return absl::OkStatus();
}

size_t TqBatch::memory_bytes() const { return impl_->device.bytes(); }

size_t TqBatch::launches() const { return impl_->groups.size() + (impl_->rows.empty() ? 0 : 1); }

size_t TqBatch::fast_tasks() const {
  size_t count = 0;
  for (const Group& group : impl_->groups) count += group.fast ? group.count : 0;
  return count;
}

}  // namespace quire::cuda

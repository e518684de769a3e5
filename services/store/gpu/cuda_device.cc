#include "services/store/gpu/cuda_device.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/block/slice_map.h"
#include "cuda/ipc.h"
#include "cuda/memory.h"
#include "cuda/stream.h"
#include "services/store/engine/raw_form.h"
#include "services/store/gpu/forms.h"

namespace quire::store {
namespace {

constexpr size_t kAlignment = 256;
size_t RoundUp(size_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

uint64_t LayersBytes(const CodedForm& form, uint32_t begin, uint32_t end, DType dtype) {
  uint64_t bytes = 0;
  for (uint32_t l = begin; l < end; ++l) bytes += RawLayerBytes(*form.layout, form.part, l, dtype);
  return bytes;
}

template <typename Job>
void FailAll(std::span<Job> jobs, const absl::Status& status) {
  for (Job& job : jobs) job.status = status;
}

}  // namespace

struct CudaDevice::Impl {
  // What one call at a time uses.
  struct Lane {
    int number = 0;
    cuda::Stream stream;
    cuda::DeviceBuffer device;  // staging for raw KV
    cuda::PinnedBuffer host;
  };
  // A lane held for a call.
  class Held {
   public:
    Held(Impl& impl, Lane* lane) : impl_(impl), lane_(lane) {}
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;
    ~Held() {
      {
        std::lock_guard lock(impl_.mu);
        impl_.free.push_back(lane_);
      }
      impl_.freed.notify_one();
    }
    Lane& operator*() const { return *lane_; }
    Lane* operator->() const { return lane_; }

   private:
    Impl& impl_;
    Lane* lane_;
  };

  explicit Impl(const CudaDeviceOptions& o) : options(o), forms(o.lanes, o.batch_blocks) {}
  Lane* Take() {
    std::unique_lock lock(mu);
    freed.wait(lock, [&] { return !free.empty(); });
    Lane* lane = free.back();
    free.pop_back();
    return lane;
  }
  absl::Status EncodeBatch(GpuForm& form, const CodedForm& coded, const CodecSpec& spec, DType dtype,
                           std::span<EncodeJob> jobs);
  absl::Status Seal(GpuForm& form, GpuForm::Lists& lists, Lane& lane, std::span<EncodeJob> jobs);
  absl::Status DecodeBatch(GpuForm& form, const CodedForm& coded, uint32_t layer_begin, uint32_t layer_end,
                           DType dtype, std::span<DecodeJob*> jobs);

  const CudaDeviceOptions options;
  GpuForms forms;
  std::vector<std::unique_ptr<Lane>> lanes;
  std::mutex mu;  // guards free
  std::condition_variable freed;
  std::vector<Lane*> free;
};

CudaDevice::CudaDevice(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CudaDevice::~CudaDevice() = default;

absl::StatusOr<std::shared_ptr<CudaDevice>> CudaDevice::Create(const CudaDeviceOptions& options) {
  QUIRE_RETURN_IF_ERROR(cuda::CurrentDevice().status());
  if (options.lanes < 1 || options.batch_blocks < 1) {
    return absl::InvalidArgumentError(absl::StrCat("gpu: ", options.lanes, " lanes of ", options.batch_blocks,
                                                   " blocks: at least 1 of each"));
  }
  auto impl = std::make_unique<Impl>(options);
  for (int i = 0; i < options.lanes; ++i) {
    QUIRE_ASSIGN_OR_RETURN(cuda::Stream stream, cuda::Stream::Create());
    QUIRE_ASSIGN_OR_RETURN(cuda::DeviceBuffer device, cuda::DeviceBuffer::Allocate(options.staging_bytes));
    QUIRE_ASSIGN_OR_RETURN(cuda::PinnedBuffer host, cuda::PinnedBuffer::Allocate(options.staging_bytes));
    impl->lanes.push_back(
        std::make_unique<Impl::Lane>(Impl::Lane{i, std::move(stream), std::move(device), std::move(host)}));
    impl->free.push_back(impl->lanes.back().get());
  }
  return std::shared_ptr<CudaDevice>(new CudaDevice(std::move(impl)));
}

absl::StatusOr<std::shared_ptr<uint8_t>> CudaDevice::Allocate(uint64_t bytes) {
  QUIRE_ASSIGN_OR_RETURN(size_t free, cuda::FreeDeviceBytes());
  absl::StatusOr<cuda::DeviceBuffer> buffer = cuda::DeviceBuffer::Allocate(bytes);
  if (absl::IsResourceExhausted(buffer.status()))
    return absl::ResourceExhaustedError(absl::StrCat("the GPU has ", free, " bytes left, not ", bytes));
  QUIRE_RETURN_IF_ERROR(buffer.status());
  auto owner = std::make_shared<cuda::DeviceBuffer>(*std::move(buffer));
  uint8_t* data = owner->data();
  return std::shared_ptr<uint8_t>(std::move(owner), data);
}

absl::StatusOr<std::shared_ptr<const void>> CudaDevice::PinHost(MutableBytes memory) {
  QUIRE_ASSIGN_OR_RETURN(cuda::HostRegistration pinned,
                         cuda::HostRegistration::Create(memory.data(), memory.size()));
  return std::make_shared<cuda::HostRegistration>(std::move(pinned));
}

absl::Status CudaDevice::CopyAll(std::span<const Copy> copies) {
  Impl::Held lane(*impl_, impl_->Take());
  absl::Status status;
  for (const Copy& copy : copies)
    status.Update(cuda::CopyAny(lane->stream.ref(), copy.from, copy.bytes, copy.to));
  // What was enqueued before an error must be over too: its memory is the caller's.
  status.Update(lane->stream.Synchronize());
  return status;
}

absl::StatusOr<uint64_t> CudaDevice::EncodedBytes(const CodedForm& form, const CodecSpec& spec, DType dtype,
                                                  bool first_block) {
  std::vector<LayerCodec> codecs = LayerCodecs(spec, *form.layout, form.part);
  bool raw = std::any_of(codecs.begin(), codecs.end(), [](auto& c) { return c.codec == CodecId::kRaw; });
  if (raw && dtype != form.layout->dtype)
    return absl::UnimplementedError("gpu: raw layers of another type than the layout's");
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<GpuForm> known, impl_->forms.Get(form, codecs));
  if (uint64_t bytes = LayersBytes(form, 0, form.part.layers(), dtype);
      bytes > impl_->options.staging_bytes) {
    return absl::UnimplementedError(
        absl::StrCat("gpu: blocks of ", bytes, " raw bytes: at most ", impl_->options.staging_bytes));
  }
  const SliceMap& map = known->shape().map(first_block);
  return map.ObjectBytes(map.levels());
}

void CudaDevice::Encode(const CodedForm& form, const CodecSpec& spec, DType dtype,
                        std::span<EncodeJob> jobs) {
  if (jobs.empty()) return;
  absl::StatusOr<std::shared_ptr<GpuForm>> known =
      impl_->forms.Get(form, LayerCodecs(spec, *form.layout, form.part));
  if (!known.ok()) return FailAll(jobs, known.status());
  const uint64_t raw_bytes = RoundUp(LayersBytes(form, 0, form.part.layers(), dtype));
  while (!jobs.empty()) {
    size_t count = 0;
    for (uint64_t staged = 0; count < jobs.size() && count < impl_->options.batch_blocks; ++count) {
      staged += jobs[count].raw_on_device ? 0 : raw_bytes;
      if (count > 0 && staged > impl_->options.staging_bytes) break;
    }
    std::span<EncodeJob> batch = jobs.first(count);
    if (absl::Status status = impl_->EncodeBatch(**known, form, spec, dtype, batch); !status.ok())
      FailAll(batch, status);
    jobs = jobs.subspan(count);
  }
}

absl::Status CudaDevice::Impl::EncodeBatch(GpuForm& form, const CodedForm& coded, const CodecSpec& spec,
                                           DType dtype, std::span<EncodeJob> jobs) {
  Held lane(*this, Take());
  cuda::StreamRef stream = lane->stream.ref();
  QUIRE_ASSIGN_OR_RETURN(GpuForm::Lists * lists, form.EncodeLists(lane->number));
  const uint64_t raw_bytes = LayersBytes(coded, 0, coded.part.layers(), dtype);
  lists->tasks.Clear();
  lists->ranges.clear();
  uint64_t staged = 0;
  auto* objects = reinterpret_cast<const uint8_t**>(lists->objects.data());
  auto enqueue = [&]() -> absl::Status {
    for (size_t i = 0; i < jobs.size(); ++i) {
      EncodeJob& job = jobs[i];
      const uint8_t* raw = job.raw;
      if (!job.raw_on_device) {
        std::memcpy(lane->host.data() + staged, job.raw, raw_bytes);
        QUIRE_RETURN_IF_ERROR(
            cuda::CopyToDevice(stream, lane->host.data() + staged, raw_bytes, lane->device.data() + staged));
        raw = lane->device.data() + staged;
        staged += RoundUp(raw_bytes);
      }
      cuda::TqBatch::Range range{lists->tasks.tasks.size(), 0, lists->tasks.rows.size(), 0};
      QUIRE_RETURN_IF_ERROR(lists->tasks.AddEncode(form.shape(), job.identity.index == 0,
                                                   RawFormViews(*coded.layout, coded.part, dtype, raw),
                                                   job.object));
      range.tasks = lists->tasks.tasks.size() - range.first_task;
      range.rows = lists->tasks.rows.size() - range.first_row;
      lists->ranges.push_back(range);
      objects[i] = job.object;
    }
    QUIRE_RETURN_IF_ERROR(lists->batch.Set(lists->tasks.tasks, lists->tasks.rows, spec));
    QUIRE_RETURN_IF_ERROR(lists->batch.Run(stream));
    for (size_t from = 0; from < jobs.size();) {
      const bool first = jobs[from].identity.index == 0;
      size_t count = 1;
      while (from + count < jobs.size() && (jobs[from + count].identity.index == 0) == first) ++count;
      QUIRE_RETURN_IF_ERROR(form.LaunchChecksums(stream, first, *lists, from, count));
      from += count;
    }
    return absl::OkStatus();
  };
  absl::Status status = enqueue();
  status.Update(lane->stream.Synchronize());  // of a failed one too: what it uses is others' afterwards
  QUIRE_RETURN_IF_ERROR(status);
  status = Seal(form, *lists, *lane, jobs);
  status.Update(lane->stream.Synchronize());
  return status;
}

// Gives the encoded objects their headers.
absl::Status CudaDevice::Impl::Seal(GpuForm& form, GpuForm::Lists& lists, Lane& lane,
                                    std::span<EncodeJob> jobs) {
  const auto* checksums = reinterpret_cast<const uint64_t*>(lists.checksums.data());
  for (size_t i = 0; i < jobs.size(); ++i) {
    EncodeJob& job = jobs[i];
    job.status = lists.batch.CheckReports(lists.ranges[i]);
    if (!job.status.ok()) continue;
    const SliceMap& map = form.shape().map(job.identity.index == 0);
    job.header =
        cuda::HeaderOf(form.shape(), form.fingerprint(), job.identity, lists.batch,
                       lists.ranges[i].first_task, {checksums + i * form.checksum_pitch(), map.checksums()});
    std::vector<uint8_t> bytes = SerializeHeader(job.header);
    uint8_t* at = lists.headers.data() + i * form.header_pitch();
    std::copy(bytes.begin(), bytes.end(), at);
    QUIRE_RETURN_IF_ERROR(cuda::CopyToDevice(lane.stream.ref(), at, bytes.size(), job.object));
  }
  return absl::OkStatus();
}

void CudaDevice::Decode(const CodedForm& form, uint32_t layer_begin, uint32_t layer_end, DType dtype,
                        std::span<DecodeJob> jobs) {
  const uint64_t out_bytes = RoundUp(LayersBytes(form, layer_begin, layer_end, dtype));
  if (out_bytes > impl_->options.staging_bytes) {
    return FailAll(jobs, absl::UnimplementedError(absl::StrCat("gpu: ", out_bytes, " raw bytes: at most ",
                                                               impl_->options.staging_bytes)));
  }
  std::vector<DecodeJob*> batch;
  for (size_t i = 0; i < jobs.size();) {
    // Blocks of one codec go together.
    batch.clear();
    absl::StatusOr<std::shared_ptr<GpuForm>> known = impl_->forms.Get(form, jobs[i].header->codecs);
    for (uint64_t staged = 0; i < jobs.size() && batch.size() < impl_->options.batch_blocks; ++i) {
      staged += jobs[i].out_on_device ? 0 : out_bytes;
      if (!batch.empty() &&
          (staged > impl_->options.staging_bytes || jobs[i].header->codecs != batch.front()->header->codecs))
        break;
      batch.push_back(&jobs[i]);
    }
    absl::Status status = known.status();
    if (known.ok()) status = impl_->DecodeBatch(**known, form, layer_begin, layer_end, dtype, batch);
    for (DecodeJob* job : batch) job->status = status;
  }
}

absl::Status CudaDevice::Impl::DecodeBatch(GpuForm& form, const CodedForm& coded, uint32_t layer_begin,
                                           uint32_t layer_end, DType dtype, std::span<DecodeJob*> jobs) {
  Held lane(*this, Take());
  cuda::StreamRef stream = lane->stream.ref();
  QUIRE_ASSIGN_OR_RETURN(GpuForm::Lists * lists, form.DecodeLists(lane->number));
  const uint64_t out_bytes = LayersBytes(coded, layer_begin, layer_end, dtype);
  lists->tasks.Clear();
  auto enqueue = [&]() -> absl::Status {
    uint64_t staged = 0;
    for (DecodeJob* job : jobs) {
      uint8_t* out = job->out_on_device ? job->out : lane->device.data() + staged;
      staged += job->out_on_device ? 0 : RoundUp(out_bytes);
      for (uint32_t l = layer_begin; l < layer_end; ++l) {
        QUIRE_RETURN_IF_ERROR(lists->tasks.AddDecodeLayer(
            form.shape(), job->header->identity.index == 0, job->levels, job->object, l,
            RawMutableLayerView(*coded.layout, coded.part, l, dtype, out)));
        out += RawLayerBytes(*coded.layout, coded.part, l, dtype);
      }
    }
    QUIRE_RETURN_IF_ERROR(lists->batch.Set(lists->tasks.tasks, lists->tasks.rows, CodecSpec()));
    QUIRE_RETURN_IF_ERROR(lists->batch.Run(stream));
    if (staged == 0) return absl::OkStatus();
    return cuda::CopyToHost(stream, lane->device.data(), staged, lane->host.data());
  };
  absl::Status status = enqueue();
  status.Update(lane->stream.Synchronize());
  QUIRE_RETURN_IF_ERROR(status);
  uint64_t staged = 0;
  for (DecodeJob* job : jobs) {
    if (job->out_on_device) continue;
    std::memcpy(job->out, lane->host.data() + staged, out_bytes);
    staged += RoundUp(out_bytes);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<uint8_t>> CudaDevice::Open(const DeviceBufferName& buffer) {
  cuda::SharedMemoryName name;
  if (buffer.ipc_handle.size() != name.handle.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a CUDA IPC handle has ", name.handle.size(), " bytes, not ", buffer.ipc_handle.size()));
  }
  if (buffer.device_uuid.size() != name.device.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a device's UUID has ", name.device.size(), " bytes, not ", buffer.device_uuid.size()));
  }
  std::memcpy(name.handle.data(), buffer.ipc_handle.data(), name.handle.size());
  std::memcpy(name.device.data(), buffer.device_uuid.data(), name.device.size());
  name.offset = buffer.offset;
  QUIRE_ASSIGN_OR_RETURN(cuda::ImportedMemory memory, cuda::ImportedMemory::Open(name));
  if (buffer.offset > memory.bytes() || buffer.bytes > memory.bytes() - buffer.offset) {
    return absl::InvalidArgumentError(absl::StrCat("a device buffer of ", buffer.bytes, " bytes at ",
                                                   buffer.offset, ": its allocation has ", memory.bytes()));
  }
  auto owner = std::make_shared<cuda::ImportedMemory>(std::move(memory));
  uint8_t* data = owner->base() + buffer.offset;
  return std::shared_ptr<uint8_t>(std::move(owner), data);
}

absl::StatusOr<DeviceBufferName> CudaDevice::Share(const uint8_t* buffer, uint64_t bytes) {
  QUIRE_ASSIGN_OR_RETURN(cuda::SharedMemoryName name, cuda::ShareMemory(buffer));
  return DeviceBufferName{std::string(name.handle.begin(), name.handle.end()), name.offset, bytes,
                          std::string(name.device.begin(), name.device.end())};
}

}  // namespace quire::store

#include "cuda/attention.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cuda/attention_impl.h"
#include "cuda/attention_kernel.h"
#include "cuda/check.h"
#include "cuda/tq_tables.h"

namespace quire::cuda {

struct DecodeAttention::Impl {
  Shape shape;
  AttentionLaunch launch{};  // but for what a Run says
  DeviceBuffer partials, arrived;
};

DecodeAttention::DecodeAttention(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DecodeAttention::DecodeAttention(DecodeAttention&&) noexcept = default;
DecodeAttention& DecodeAttention::operator=(DecodeAttention&&) noexcept = default;
DecodeAttention::~DecodeAttention() = default;

absl::StatusOr<DecodeAttention> DecodeAttention::Create(const Shape& shape) {
  if (!IsAttentionDim(shape.dim) || shape.group > kMaxAttentionGroup) {
    return absl::UnimplementedError(absl::StrCat("attention: d=", shape.dim, " (64, 128, 192 or 256), ",
                                                 shape.group, " query heads a KV head (at most ",
                                                 kMaxAttentionGroup, ")"));
  }
  if (shape.group == 0 || shape.kv_heads == 0 || shape.sequences == 0) {
    return absl::InvalidArgumentError(absl::StrCat("attention: ", shape.kv_heads, " KV heads, groups of ",
                                                   shape.group, ", ", shape.sequences, " sequences"));
  }
  auto info = CurrentDevice();
  if (!info.ok()) return info.status();
  if (info->major != 9 || info->minor != 0) {
    return absl::UnimplementedError(absl::StrCat("attention on codes: compute capability ", info->major, ".",
                                                 info->minor, "; wants 9.0"));
  }
  auto impl = std::make_unique<Impl>();
  impl->shape = shape;
  AttentionLaunch& launch = impl->launch;
  launch.kv_heads = shape.kv_heads;
  launch.group = shape.group;
  launch.blocks = info->multiprocessors;
  DimTable table = MakeDimTable(shape.dim, shape.seed);
  for (int round = 0; round < 2; ++round) {
    for (uint32_t w = 0; w < shape.dim / 32; ++w)
      launch.signs[round][w] = static_cast<uint32_t>(table.signs[round][w / 2] >> (w % 2 * 32));
  }
  // Row 1 of the Hartley matrix: what [j][k] has for j·k = 0, 1, 2 modulo 3.
  if (table.odd == 3) std::copy_n(table.hartley + 3, 3, launch.hartley);

  size_t pairs = size_t{shape.sequences} * shape.kv_heads;
  size_t slots = pairs + kSegmentsPerBlock * launch.blocks;
  auto partials = DeviceBuffer::Allocate(slots * shape.group * PartialFloats(shape.dim) * sizeof(float));
  if (!partials.ok()) return partials.status();
  auto arrived = DeviceBuffer::Allocate(pairs * sizeof(uint32_t));
  if (!arrived.ok()) return arrived.status();
  auto stream = Stream::Create();
  if (!stream.ok()) return stream.status();
  if (absl::Status s = Fill(stream->ref(), 0, pairs * sizeof(uint32_t), arrived->data()); !s.ok()) return s;
  if (absl::Status s = stream->Synchronize(); !s.ok()) return s;
  impl->partials = *std::move(partials);
  impl->arrived = *std::move(arrived);
  launch.partials = reinterpret_cast<float*>(impl->partials.data());
  launch.arrived = reinterpret_cast<uint32_t*>(impl->arrived.data());
  return DecodeAttention(std::move(impl));
}

absl::Status DecodeAttention::Run(const AttentionPlan& plan, const AttentionForms& forms, uint32_t layer,
                                  float score_scale, const void* q, int64_t q_stride, void* out,
                                  int64_t out_stride, StreamRef stream) const {
  const AttentionPlan::Impl& p = *plan.impl_;
  AttentionLaunch launch = impl_->launch;
  if (p.limits.kv_heads != launch.kv_heads || p.blocks != launch.blocks ||
      p.sequences > impl_->shape.sequences || p.sequences == 0 || layer >= forms.layers()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "attention: a plan of ", p.sequences, " sequences (1 to ", impl_->shape.sequences, ") and ",
        p.limits.kv_heads, " KV heads (", launch.kv_heads, "), layer ", layer, " of ", forms.layers()));
  }
  auto aligned = [](const void* data, int64_t stride) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % 8 == 0;
  };
  if (!aligned(q, q_stride) || !aligned(out, out_stride))
    return absl::InvalidArgumentError("attention: queries and outputs must stand on 16 bytes");
  launch.forms = forms.device(layer);
  launch.form_count = forms.count();
  launch.items = p.at<AttentionItem>(p.items_at);
  launch.segments = p.at<AttentionSegment>(p.segments_at);
  launch.block_first = p.at<uint32_t>(p.first_at);
  launch.q = q;
  launch.out = out;
  launch.q_stride = q_stride;
  launch.out_stride = out_stride;
  launch.score_scale = score_scale;
  launch.pages_settled = impl_->shape.pages_settled;
  auto s = static_cast<cudaStream_t>(stream.handle);
  switch (impl_->shape.dim) {
    case 64:
      return QUIRE_CUDA_CALL(LaunchAttentionOf<64>(launch, s));
    case 128:
      return QUIRE_CUDA_CALL(LaunchAttentionOf<128>(launch, s));
    case 192:
      return QUIRE_CUDA_CALL(LaunchAttentionOf<192>(launch, s));
    default:
      return QUIRE_CUDA_CALL(LaunchAttentionOf<256>(launch, s));
  }
}

size_t DecodeAttention::memory_bytes() const { return impl_->partials.bytes() + impl_->arrived.bytes(); }

}  // namespace quire::cuda

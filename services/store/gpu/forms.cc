#include "services/store/gpu/forms.h"

#include <algorithm>

#include "core/base/status_macros.h"

namespace quire::store {

absl::StatusOr<std::shared_ptr<GpuForm>> GpuForm::Create(const CodedForm& form,
                                                         std::vector<LayerCodec> codecs, int lanes,
                                                         uint32_t batch_blocks) {
  QUIRE_ASSIGN_OR_RETURN(cuda::BlockShape shape,
                         cuda::BlockShape::CreateFor(*form.layout, form.part, std::move(codecs)));
  QUIRE_ASSIGN_OR_RETURN(
      std::shared_ptr<const cuda::TqCodec> codec,
      cuda::TqCodec::Create(form.layout->rotation_seed, shape.dims(), shape.projected_dims()));
  QUIRE_ASSIGN_OR_RETURN(cuda::SliceChecksums first, cuda::SliceChecksums::Create(shape.map(true)));
  QUIRE_ASSIGN_OR_RETURN(cuda::SliceChecksums other, cuda::SliceChecksums::Create(shape.map(false)));
  std::shared_ptr<GpuForm> made(
      new GpuForm(std::move(shape), std::move(codec), std::move(first), std::move(other)));
  made->fingerprint_ = form.fingerprint;
  made->batch_blocks_ = batch_blocks;
  const SliceMap &a = made->shape_.map(true), &b = made->shape_.map(false);
  made->header_pitch_ = (std::max(a.header_bytes(), b.header_bytes()) + 255) / 256 * 256;
  made->checksum_pitch_ = std::max(a.checksums(), b.checksums());
  made->encode_.resize(static_cast<size_t>(lanes));
  made->decode_.resize(static_cast<size_t>(lanes));
  return made;
}

absl::StatusOr<GpuForm::Lists*> GpuForm::EncodeLists(int lane) {
  std::unique_ptr<Lists>& lists = encode_[static_cast<size_t>(lane)];
  if (lists != nullptr) return lists.get();
  cuda::TqBatch::Limits limits = shape_.TasksPerBlock();
  limits.tasks *= batch_blocks_;
  limits.reports *= batch_blocks_;
  limits.rows *= batch_blocks_;
  QUIRE_ASSIGN_OR_RETURN(cuda::TqBatch batch,
                         cuda::TqBatch::Create(codec_, cuda::TqBatch::Direction::kEncode, limits));
  auto made = std::make_unique<Lists>(Lists{std::move(batch), {}, {}, {}, {}, {}});
  QUIRE_ASSIGN_OR_RETURN(made->headers, cuda::PinnedBuffer::Allocate(batch_blocks_ * header_pitch_));
  QUIRE_ASSIGN_OR_RETURN(made->checksums,
                         cuda::PinnedBuffer::Allocate(batch_blocks_ * checksum_pitch_ * sizeof(uint64_t)));
  QUIRE_ASSIGN_OR_RETURN(made->objects, cuda::PinnedBuffer::Allocate(batch_blocks_ * sizeof(uint8_t*)));
  lists = std::move(made);
  return lists.get();
}

absl::StatusOr<GpuForm::Lists*> GpuForm::DecodeLists(int lane) {
  std::unique_ptr<Lists>& lists = decode_[static_cast<size_t>(lane)];
  if (lists != nullptr) return lists.get();
  cuda::TqBatch::Limits limits = shape_.TasksPerBlock();
  limits.tasks *= batch_blocks_;
  limits.reports = 0;
  limits.rows *= batch_blocks_;
  QUIRE_ASSIGN_OR_RETURN(cuda::TqBatch batch,
                         cuda::TqBatch::Create(codec_, cuda::TqBatch::Direction::kDecode, limits));
  lists = std::make_unique<Lists>(Lists{std::move(batch), {}, {}, {}, {}, {}});
  return lists.get();
}

absl::Status GpuForm::LaunchChecksums(cuda::StreamRef stream, bool first_block, const Lists& lists,
                                      size_t from, size_t count) const {
  const auto* objects = reinterpret_cast<const uint8_t* const*>(lists.objects.data());
  auto* out = reinterpret_cast<uint64_t*>(lists.checksums.data()) + from * checksum_pitch_;
  return (first_block ? first_ : other_)
      .Launch(stream, objects + from, static_cast<uint32_t>(count), out, checksum_pitch_);
}

absl::StatusOr<std::shared_ptr<GpuForm>> GpuForms::Get(const CodedForm& form,
                                                       const std::vector<LayerCodec>& codecs) {
  std::lock_guard lock(mu_);
  auto it = std::find_if(forms_.begin(), forms_.end(), [&](const auto& f) { return f->Is(form, codecs); });
  if (it != forms_.end()) {
    forms_.splice(forms_.begin(), forms_, it);
    return forms_.front();
  }
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<GpuForm> made, GpuForm::Create(form, codecs, lanes_, batch_blocks_));
  if (forms_.size() >= kKept) forms_.pop_back();
  forms_.push_front(made);
  return made;
}

}  // namespace quire::store

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cuda/attention_impl.h"

namespace quire::cuda {
namespace {

// Less than this a page never costs: a handful of raw rows takes a warp as long.
constexpr uint32_t kLeastCost = 4096;

size_t Aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace

AttentionPlan::AttentionPlan(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
AttentionPlan::AttentionPlan(AttentionPlan&&) noexcept = default;
AttentionPlan& AttentionPlan::operator=(AttentionPlan&&) noexcept = default;
AttentionPlan::~AttentionPlan() = default;

absl::StatusOr<AttentionPlan> AttentionPlan::Create(const Limits& limits) {
  if (limits.sequences == 0 || limits.items == 0 || limits.kv_heads == 0) {
    return absl::InvalidArgumentError(absl::StrCat("attention: a plan of ", limits.sequences, " sequences, ",
                                                   limits.items, " items, ", limits.kv_heads, " KV heads"));
  }
  auto info = CurrentDevice();
  if (!info.ok()) return info.status();
  auto impl = std::make_unique<Impl>();
  impl->limits = limits;
  impl->blocks = info->multiprocessors;
  size_t pairs = size_t{limits.sequences} * limits.kv_heads;
  impl->max_segments = static_cast<uint32_t>(pairs + (kSegmentsPerBlock + 1) * impl->blocks);
  impl->segments_at = Aligned((impl->blocks + 1) * sizeof(uint32_t));
  impl->items_at = impl->segments_at + Aligned(impl->max_segments * sizeof(AttentionSegment));
  size_t bytes = impl->items_at + size_t{limits.items} * sizeof(AttentionItem);
  auto host = PinnedBuffer::Allocate(bytes);
  if (!host.ok()) return host.status();
  auto device = DeviceBuffer::Allocate(bytes);
  if (!device.ok()) return device.status();
  impl->host = *std::move(host);
  impl->device = *std::move(device);
  return AttentionPlan(std::move(impl));
}

// Items of what a sequence sees: codes first, raw rows after them, each in the order of its pages.
absl::Status AttentionPlan::Impl::AddSequence(const AttentionSequence& sequence, const AttentionForms& forms,
                                              uint32_t layer, uint32_t window) {
  auto* list = reinterpret_cast<AttentionItem*>(host.data() + items_at);
  int64_t length = sequence.length, from = window == 0 ? 0 : std::max<int64_t>(0, length - window);
  AttentionWork mine{items};
  for (AttentionForm::Kind kind : {AttentionForm::kCoded, AttentionForm::kRaw}) {
    for (size_t p = 0; p < sequence.pages.size(); ++p) {
      const AttentionPage& page = sequence.pages[p];
      if (page.form >= forms.count() || page.tokens > kBlockTokens ||
          reinterpret_cast<uintptr_t>(page.data) % 16 != 0 || page.data == nullptr) {
        return absl::InvalidArgumentError(
            absl::StrCat("attention: sequence ", sequences, ", page ", p, ": form ", page.form, " of ",
                         forms.count(), ", ", page.tokens, " tokens of at most ", kBlockTokens, ", address ",
                         reinterpret_cast<uintptr_t>(page.data), ", which must be a multiple of 16"));
      }
      const AttentionForm& form = forms.form(layer, page.form);
      if (form.kind != kind) continue;
      int64_t begin = std::max<int64_t>(page.first_token, from - page.position);
      int64_t end = std::min<int64_t>(page.tokens, length - page.position);
      if (begin >= end) continue;
      if (items == limits.items)
        return absl::ResourceExhaustedError(
            absl::StrCat("attention: more than ", limits.items, " pages, the plan's limit"));
      list[items] = {page.data, page.form, static_cast<uint8_t>(begin), static_cast<uint8_t>(end)};
      uint32_t cost = kind == AttentionForm::kCoded ? form.length[0] + form.length[1] + form.length[2]
                                                    : form.length[0] * static_cast<uint32_t>(end - begin);
      costs.push_back(std::max(cost, kLeastCost));
      bytes += uint64_t{cost} * limits.kv_heads;
      ++(kind == AttentionForm::kCoded ? mine.coded : mine.raw);
      ++items;
    }
  }
  if (mine.coded + mine.raw == 0) {
    return absl::InvalidArgumentError(absl::StrCat("attention: sequence ", sequences, " of length ", length,
                                                   " sees no token of its pages"));
  }
  work.push_back(mine);
  ++sequences;
  return absl::OkStatus();
}

absl::Status AttentionPlan::Set(std::span<const AttentionSequence> sequences, const AttentionForms& forms,
                                uint32_t layer, uint32_t window) {
  Impl& impl = *impl_;
  if (layer >= forms.layers())
    return absl::InvalidArgumentError(absl::StrCat("attention: layer ", layer, " of ", forms.layers()));
  if (sequences.empty() || sequences.size() > impl.limits.sequences) {
    return absl::ResourceExhaustedError(absl::StrCat("attention: ", sequences.size(), " sequences; 1 to ",
                                                     impl.limits.sequences, ", the plan's limit"));
  }
  impl.sequences = impl.items = 0;
  impl.bytes = 0;
  impl.work.clear();
  impl.costs.clear();
  for (const AttentionSequence& sequence : sequences) {
    if (absl::Status s = impl.AddSequence(sequence, forms, layer, window); !s.ok()) {
      impl.sequences = 0;
      return s;
    }
  }
  MakeSchedule(impl.work, impl.costs, impl.limits.kv_heads, impl.blocks, &impl.schedule);
  auto copy = [&](size_t at, const auto& list) {
    std::memcpy(impl.host.data() + at, list.data(), list.size() * sizeof(list[0]));
  };
  copy(impl.first_at, impl.schedule.first);
  copy(impl.segments_at, impl.schedule.segments);
  return absl::OkStatus();
}

absl::Status AttentionPlan::Upload(StreamRef stream) {
  return CopyToDevice(stream, impl_->host.data(), impl_->items_at + impl_->items * sizeof(AttentionItem),
                      impl_->device.data());
}

uint32_t AttentionPlan::sequences() const { return impl_->sequences; }
uint64_t AttentionPlan::bytes() const { return impl_->bytes; }
size_t AttentionPlan::memory_bytes() const { return impl_->device.bytes(); }

}  // namespace quire::cuda

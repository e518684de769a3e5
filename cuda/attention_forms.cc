#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/codec/codebook.h"
#include "core/codec/tq.h"
#include "cuda/attention.h"

namespace quire::cuda {
namespace {

double NormalBelow(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

struct ByteTable {
  std::array<uint32_t, 2> bytes{};
  float step = 0;
};

// The step and bytes b whose (b + ½) · step are nearest to the centroids of `kept` bits, where the density
// counts; b ≤ 127.
ByteTable FitBytes(const Codebook& book, int kept) {
  const std::vector<double>& centroids = book.merged_centroids(kept);
  size_t n = centroids.size(), merged = book.centroids().size() / n;
  std::vector<double> share(n);
  for (size_t k = 0; k < n; ++k) {
    auto edge = [&](size_t i) { return i == 0 ? 0 : book.thresholds()[i - 1]; };
    share[k] = (k + 1 == n ? 1 : NormalBelow(edge((k + 1) * merged))) - NormalBelow(edge(k * merged));
  }
  auto byte = [&](size_t k, double inverse) {
    return std::clamp(std::round(centroids[k] * inverse - 0.5), 0.0, 127.0);
  };
  double best = INFINITY, best_inverse = 0, best_step = 0;
  double last = 127.5 / centroids.back();
  for (double inverse = last / 3; inverse <= last; inverse += last / 6000) {
    double cross = 0, square = 0, energy = 0;
    for (size_t k = 0; k < n; ++k) {
      double b = byte(k, inverse) + 0.5;
      cross += share[k] * b * centroids[k];
      square += share[k] * b * b;
      energy += share[k] * centroids[k] * centroids[k];
    }
    double error = energy - cross * cross / square;
    if (error >= best) continue;
    best = error;
    best_inverse = inverse;
    best_step = energy / cross;  // so that ⟨c, ĉ⟩ = ⟨c, c⟩: scales stay what they are
  }
  ByteTable table;
  table.step = static_cast<float>(best_step);
  for (size_t i = 0; i < 8; ++i) {
    size_t magnitude = kept == 4 ? i : kept == 3 ? (i & 1) << 1 | i >> 2 : i & 1;
    bool negative = kept < 4 && (i & 2) != 0;
    auto b = static_cast<uint32_t>(byte(magnitude, best_inverse));
    table.bytes[i / 4] |= (negative ? b ^ 0xFF : b) << 8 * (i % 4);
  }
  return table;
}

absl::Status FitsInSlices(uint64_t offset) {
  if (offset <= UINT32_MAX) return absl::OkStatus();
  return absl::UnimplementedError(
      absl::StrCat("attention: a slice at ", offset, " bytes of a page; at most 2^32 - 1"));
}

}  // namespace

absl::StatusOr<AttentionForm> CodedForm(const SliceMap& map, const LayerLayout& layout,
                                        const LayerCodec& codec, uint32_t layer, int levels) {
  uint32_t dim = layout.key_dim();
  if (layer >= map.layers() || levels < 1 || levels > map.levels()) {
    return absl::InvalidArgumentError(absl::StrCat("attention: layer ", layer, " of ", map.layers(), ", ",
                                                   levels, " levels of ", map.levels()));
  }
  if (codec.codec != CodecId::kTq || layout.latent() || layout.value_dim() != dim || !IsAttentionDim(dim)) {
    return absl::UnimplementedError(absl::StrCat("attention on codes: ", std::string(Name(codec.codec)),
                                                 " with K of d=", dim, " and V of d=", layout.value_dim(),
                                                 "; wants tq and equal d of 64, 128, 192 or 256"));
  }
  AttentionForm form;
  form.k_kept = static_cast<uint8_t>(KeptBits(codec.k_bits, levels - 1));
  form.v_kept = static_cast<uint8_t>(KeptBits(codec.v_bits, levels - 1));
  if (form.k_kept > 4 || form.v_kept > 4) {
    return absl::UnimplementedError(absl::StrCat("attention on codes: ", form.k_kept, " bits of K and ",
                                                 form.v_kept,
                                                 " of V kept; at most 4, which the first 3 levels hold"));
  }
  for (int level = 0; level < std::min(levels, 3); ++level) {
    Extent slice = map.slice(level, layer, 0);
    if (absl::Status s = FitsInSlices(slice.end()); !s.ok()) return s;
    uint64_t next = map.heads() > 1 ? map.slice(level, layer, 1).offset : slice.end();
    form.offset[level] = static_cast<uint32_t>(slice.offset);
    form.stride[level] = static_cast<uint32_t>(next - slice.offset);
    form.length[level] = static_cast<uint32_t>(slice.length);
  }
  const Codebook &k_book = Codebook::Get(dim, codec.k_bits), &v_book = Codebook::Get(dim, codec.v_bits);
  ByteTable k = FitBytes(k_book, form.k_kept), v = FitBytes(v_book, form.v_kept);
  std::copy(k.bytes.begin(), k.bytes.end(), form.k_table);
  std::copy(v.bytes.begin(), v.bytes.end(), form.v_table);
  form.v_step = v.step;
  form.k_step = k.step;
  for (int level = 1; level < levels; ++level) {
    if (HasLevel(codec.k_bits, level))
      form.k_step *= k_book.nominal_ratio(KeptBits(codec.k_bits, level - 1), KeptBits(codec.k_bits, level));
  }
  return form;
}

absl::StatusOr<AttentionForm> SinkForm(const SliceMap& map, const LayerLayout& layout, uint32_t layer) {
  if (layer >= map.layers() || map.sinks(layer).length == 0)
    return absl::InvalidArgumentError(absl::StrCat("attention: layer ", layer, " has no sinks there"));
  Extent sinks = map.sinks(layer);
  if (absl::Status s = FitsInSlices(sinks.end()); !s.ok()) return s;
  uint32_t dim = layout.key_dim(), head = static_cast<uint32_t>(sinks.length / map.heads());
  auto offset = static_cast<uint32_t>(sinks.offset);
  return RawForm(dim, offset, offset + head / 2, head, 2 * dim);
}

absl::StatusOr<AttentionForm> RawForm(uint32_t dim, uint32_t k_offset, uint32_t v_offset,
                                      uint32_t head_stride, uint32_t token_stride) {
  if (!IsAttentionDim(dim) || (k_offset | v_offset | head_stride | token_stride) % 16 != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "attention: rows of d=", dim, " at ", k_offset, " and ", v_offset, ", strides ", head_stride, " and ",
        token_stride, " bytes; wants d of 64, 128, 192 or 256 and multiples of 16"));
  }
  AttentionForm form;
  form.kind = AttentionForm::kRaw;
  form.offset[0] = k_offset;
  form.offset[1] = v_offset;
  form.stride[0] = head_stride;
  form.stride[1] = token_stride;
  form.length[0] = 4 * dim;
  return form;
}

absl::StatusOr<AttentionForms> AttentionForms::Create(std::span<const std::vector<AttentionForm>> layers) {
  AttentionForms forms;
  forms.layers_ = static_cast<uint32_t>(layers.size());
  for (const auto& layer : layers) {
    if (layer.empty() || layer.size() > kMaxForms || layer.size() != layers[0].size()) {
      return absl::InvalidArgumentError(absl::StrCat("attention: ", layer.size(),
                                                     " forms in a layer where the first has ",
                                                     layers[0].size(), "; 1 to ", kMaxForms, ", equal"));
    }
    forms.forms_.insert(forms.forms_.end(), layer.begin(), layer.end());
  }
  if (layers.empty()) return absl::InvalidArgumentError("attention: forms of no layer");
  size_t bytes = forms.forms_.size() * sizeof(AttentionForm);
  auto buffer = DeviceBuffer::Allocate(bytes);
  if (!buffer.ok()) return buffer.status();
  forms.buffer_ = *std::move(buffer);
  auto stream = Stream::Create();
  if (!stream.ok()) return stream.status();
  if (absl::Status s = CopyToDevice(stream->ref(), forms.forms_.data(), bytes, forms.buffer_.data()); !s.ok())
    return s;
  if (absl::Status s = stream->Synchronize(); !s.ok()) return s;
  return forms;
}

}  // namespace quire::cuda

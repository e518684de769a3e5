#include "services/store/engine/raw_form.h"

#include <cstring>

#include "core/base/status_macros.h"

namespace quire::store {
namespace {

uint64_t StreamBytes(const StreamLayout& stream, uint32_t heads, DType dtype) {
  return uint64_t{kBlockTokens} * heads * stream.dim * SizeOf(dtype);
}

template <typename View, typename Layer, typename Byte>
Layer ViewsOf(const Layout& layout, const Part& part, uint32_t layer, DType dtype, Byte* data) {
  Layer out;
  const LayerLayout& shape = layout.layers[part.layer_begin + layer];
  uint32_t heads = part.HeadsOf(shape);
  for (const StreamLayout& stream : shape.streams) {
    ptrdiff_t d = stream.dim;
    View view{data, dtype, /*token_stride=*/d * heads, /*head_stride=*/d};
    (stream.kind == StreamKind::kValue ? out.value : out.key) = view;
    data += StreamBytes(stream, heads, dtype);
  }
  return out;
}

}  // namespace

uint64_t RawLayerBytes(const Layout& layout, const Part& part, uint32_t layer, DType dtype) {
  const LayerLayout& shape = layout.layers[part.layer_begin + layer];
  uint64_t bytes = 0;
  for (const StreamLayout& stream : shape.streams) bytes += StreamBytes(stream, part.HeadsOf(shape), dtype);
  return bytes;
}

uint64_t RawFormBytes(const Layout& layout, const Part& part, DType dtype) {
  uint64_t bytes = 0;
  for (uint32_t layer = 0; layer < part.layers(); ++layer) bytes += RawLayerBytes(layout, part, layer, dtype);
  return bytes;
}

LayerView RawLayerView(const Layout& layout, const Part& part, uint32_t layer, DType dtype,
                       const uint8_t* data) {
  return ViewsOf<StreamView, LayerView>(layout, part, layer, dtype, data);
}

MutableLayerView RawMutableLayerView(const Layout& layout, const Part& part, uint32_t layer, DType dtype,
                                     uint8_t* data) {
  return ViewsOf<MutableStreamView, MutableLayerView>(layout, part, layer, dtype, data);
}

std::vector<LayerView> RawFormViews(const Layout& layout, const Part& part, DType dtype,
                                    const uint8_t* data) {
  std::vector<LayerView> views;
  views.reserve(part.layers());
  for (uint32_t layer = 0; layer < part.layers(); ++layer) {
    views.push_back(RawLayerView(layout, part, layer, dtype, data));
    data += RawLayerBytes(layout, part, layer, dtype);
  }
  return views;
}

absl::Status DecodeRawLayer(const Layout& layout, const BlockReader& reader, int levels, const Part& wanted,
                            uint32_t layer, DType dtype, MutableBytes out) {
  const Part& stored = reader.header().part;
  uint32_t stored_layer = wanted.layer_begin + layer - stored.layer_begin;
  const LayerLayout& shape = layout.layers[wanted.layer_begin + layer];
  uint32_t heads = wanted.HeadsOf(shape), all_heads = stored.HeadsOf(shape);
  if (heads == 0) return absl::OkStatus();
  if (heads == all_heads) {
    return reader.DecodeLayer(stored_layer, levels,
                              RawMutableLayerView(layout, wanted, layer, dtype, out.data()));
  }
  // All heads of the object come out; the wanted ones are copied from there.
  std::vector<uint8_t> all(RawLayerBytes(layout, stored, stored_layer, dtype));
  QUIRE_RETURN_IF_ERROR(reader.DecodeLayer(
      stored_layer, levels, RawMutableLayerView(layout, stored, stored_layer, dtype, all.data())));
  const uint8_t* from = all.data();
  uint8_t* to = out.data();
  for (const StreamLayout& stream : shape.streams) {
    uint64_t head_bytes = stream.dim * SizeOf(dtype);
    for (uint32_t token = 0; token < kBlockTokens; ++token) {
      std::memcpy(to, from + (wanted.head_begin - stored.head_begin) * head_bytes, heads * head_bytes);
      from += all_heads * head_bytes;
      to += heads * head_bytes;
    }
  }
  return absl::OkStatus();
}

}  // namespace quire::store

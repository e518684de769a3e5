// The raw form of a block on the wire: for each layer of the part, K then V, each [token][head][d], densely
// packed.
#pragma once

#include <cstdint>
#include <vector>

#include "core/block/layout.h"
#include "core/block/object.h"

namespace quire::store {

// REQUIRES of all: `part` is valid for `layout`; layers count from 0 within the part.

// Bytes of one layer, and of the whole block.
uint64_t RawLayerBytes(const Layout& layout, const Part& part, uint32_t layer, DType dtype);
uint64_t RawFormBytes(const Layout& layout, const Part& part, DType dtype);

// Views of one layer whose raw form begins at `data`.
LayerView RawLayerView(const Layout& layout, const Part& part, uint32_t layer, DType dtype,
                       const uint8_t* data);
MutableLayerView RawMutableLayerView(const Layout& layout, const Part& part, uint32_t layer, DType dtype,
                                     uint8_t* data);
// Views of all layers of a block.
std::vector<LayerView> RawFormViews(const Layout& layout, const Part& part, DType dtype, const uint8_t* data);

// Decodes one layer of `wanted` (which the object's part must cover) into its raw form; `out` holds
// RawLayerBytes of it.
absl::Status DecodeRawLayer(const Layout& layout, const BlockReader& reader, int levels, const Part& wanted,
                            uint32_t layer, DType dtype, MutableBytes out);

}  // namespace quire::store

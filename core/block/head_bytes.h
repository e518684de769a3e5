// Inside core/block: what a codec of a layout keeps; the bytes of one tq-coded head, level by level, as
// pointers that the codec packs to and unpacks from; and tensors' rows as floats.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/dtype.h"
#include "core/block/object.h"
#include "core/codec/head_codec.h"
#include "core/codec/planes.h"
#include "core/codec/rotation.h"
#include "core/codec/tq.h"
#include "core/codec/tq_prod.h"

namespace quire {

struct BlockCodec::Impl {
  Layout layout;
  Part part;
  Digest fingerprint;
  // By dim / 16; null for dims the layout does not have.
  std::vector<std::unique_ptr<const Rotation>> rotations;
  struct LazyProjection {
    std::once_flag once;
    std::unique_ptr<const Projection> made;
  };
  mutable std::array<LazyProjection, kMaxCodecDim / kCodecDimStep + 1> projections;

  const Rotation& rotation(uint32_t dim) const { return *rotations[dim / kCodecDimStep]; }
  // Made when a tq_prod stream of this d is first met; 4·d² bytes.
  const Projection& projection(uint32_t dim) const {
    LazyProjection& lazy = projections[dim / kCodecDimStep];
    std::call_once(lazy.once,
                   [&] { lazy.made = std::make_unique<const Projection>(dim, layout.rotation_seed); });
    return *lazy.made;
  }
  const LayerLayout& layer(uint32_t l) const { return layout.layers[part.layer_begin + l]; }
};

// Byte is uint8_t or const uint8_t. Pointers of parts that are not there are null.
template <typename Byte>
struct TqHeadBytes {
  using Signed = std::conditional_t<std::is_const_v<Byte>, const int8_t, int8_t>;

  Byte* k_mean = nullptr;
  Byte* scalars = nullptr;
  std::array<Byte*, kMaxLevels> k_scales{}, v_scales{};
  std::array<Byte*, kMaxCodeBits - 1> k_planes{}, v_planes{};  // the two-bit plane, then the one-bit planes

  // The first `levels` levels of a head whose layer has `codec`.
  TqHeadBytes(Byte* object, const SliceMap& map, uint32_t layer_index, uint32_t head,
              const LayerLayout& layer, const LayerCodec& codec, int levels) {
    size_t k_count = 0, v_count = 0;
    for (int level = 0; level < levels; ++level) {
      Extent extent = map.slice(level, layer_index, head);
      if (extent.length == 0) continue;
      Byte* slice = object + extent.offset;
      TqSlice parts = TqSlice::At(level, layer.key_dim(), codec.k_bits, layer.value_dim(), codec.v_bits);
      auto at = [&](const Extent& part) { return part.length > 0 ? slice + part.offset : nullptr; };
      if (level == 0) {
        k_mean = at(parts.k_mean);
        scalars = at(parts.scalars);
      }
      k_scales[level] = at(parts.k_scales);
      v_scales[level] = at(parts.v_scales);
      k_count =
          AddPlanes(level, at(parts.k_planes), parts.k_planes.length, layer.key_dim(), k_count, &k_planes);
      v_count =
          AddPlanes(level, at(parts.v_planes), parts.v_planes.length, layer.value_dim(), v_count, &v_planes);
    }
  }

 private:
  static size_t AddPlanes(int level, Byte* first, uint64_t length, uint32_t dim, size_t count,
                          std::array<Byte*, kMaxCodeBits - 1>* planes) {
    if (first == nullptr) return count;
    size_t each = PlaneBytes(dim, level == 0 ? 2 : 1);
    for (uint64_t at = 0; at < length; at += each) (*planes)[count++] = first + at;
    return count;
  }
};

inline constexpr size_t kScalarBytes = 16;  // TqSlice::scalars

// Entries of tokens in natural order to TokenSlot order and back: token 8a + g is slot 8g + a, a transpose of
// 8 × 8.
inline void TransposeBytes(const void* from, void* to) {
  uint64_t rows[8];
  std::memcpy(rows, from, sizeof(rows));
  auto swap = [&](int i, int by, int shift, uint64_t mask) {
    uint64_t moved = ((rows[i] >> shift) ^ rows[i + by]) & mask;
    rows[i + by] ^= moved;
    rows[i] ^= moved << shift;
  };
  for (int i = 0; i < 4; ++i) swap(i, 4, 32, 0x00000000FFFFFFFFu);
  for (int i : {0, 1, 4, 5}) swap(i, 2, 16, 0x0000FFFF0000FFFFu);
  for (int i : {0, 2, 4, 6}) swap(i, 1, 8, 0x00FF00FF00FF00FFu);
  std::memcpy(to, rows, sizeof(rows));
}
inline void BytesToSlots(const void* tokens, uint8_t* slots) { TransposeBytes(tokens, slots); }
inline void BytesFromSlots(const uint8_t* slots, void* tokens) { TransposeBytes(slots, tokens); }

inline void ScalesToSlots(const uint16_t* tokens, uint8_t* slots) {
  uint16_t ordered[kBlockTokens];
  for (uint32_t g = 0; g < 8; ++g) {
    for (uint32_t a = 0; a < 8; ++a) ordered[8 * g + a] = tokens[8 * a + g];
  }
  std::memcpy(slots, ordered, sizeof(ordered));
}
inline void ScalesFromSlots(const uint8_t* slots, uint16_t* tokens) {
  uint16_t ordered[kBlockTokens];
  std::memcpy(ordered, slots, sizeof(ordered));
  for (uint32_t g = 0; g < 8; ++g) {
    for (uint32_t a = 0; a < 8; ++a) tokens[8 * a + g] = ordered[8 * g + a];
  }
}

// n elements of type t at `data`, from and to floats.
void LoadRow(DType t, const void* data, size_t n, float* row);
void StoreRow(DType t, const float* row, size_t n, void* data);

// One head's scales and mean on their way between slices and the codec: kept by each thread, so that no call
// allocates.
struct HeadScratch {
  TqKey key;
  TqValue value;

  HeadScratch() {
    key.codes.clear();  // codes go straight to planes
    value.codes.clear();
  }
  static HeadScratch& OfThread() {
    thread_local HeadScratch scratch;
    return scratch;
  }
};

}  // namespace quire

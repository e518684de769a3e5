// Where every slice of an object lies. Nothing else in Quire does offset arithmetic on object bytes.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "core/block/layout.h"
#include "core/codec/spec.h"

namespace quire {

inline constexpr int kMaxLevels = 4;

struct Extent {
  uint64_t offset = 0;  // from the object's first byte
  uint64_t length = 0;
  uint64_t end() const { return offset + length; }
};

// Where the parts of one tq slice lie, from the slice's first byte. A part that the level lacks has length 0.
// All parts are multiples of 16 bytes and stand in the order of these fields (core/block/README.md).
struct TqSlice {
  Extent k_mean;    // level 0: int8 [dk]
  Extent scalars;   // level 0: bf16 step of the mean, bf16 base of V's scales, 12 zero bytes
  Extent k_scales;  // level 0: bf16 [64]; above: int8 corrections [64]; all in TokenSlot order (planes.h)
  Extent k_planes;  // level 0: the two-bit plane; level 3: up to four one-bit planes, one after the other
  Extent v_scales;  // level 0: u8 codes [64]; level 3: int8 corrections [64]
  Extent v_planes;
  uint64_t bytes = 0;

  // Level 0…3 of a head with K of k_dim at k_bits and V of v_dim at v_bits; v_dim 0 for a latent.
  static TqSlice At(int level, uint32_t k_dim, int k_bits, uint32_t v_dim, int v_bits);
};

// The same for the codecs that have level 0 alone and no parts for both streams: fp8 and tq_prod. All parts
// are multiples of 16 bytes and stand in this order, K's before V's.
struct FlatSlice {
  struct Stream {
    Extent scales;  // bf16 [64]; fp8: tokens in order, tq_prod: in TokenSlot order
    Extent rests;   // tq_prod: bf16 [64], norms of the residuals, in TokenSlot order
    Extent codes;   // fp8: u8 [64][d]; tq_prod: the two-bit plane, then b − 2 one-bit planes
  };
  Stream k, v;
  uint64_t bytes = 0;

  // v_dim 0 for a latent. REQUIRES: codec is fp8 or tq_prod and valid.
  static FlatSlice At(const LayerCodec& codec, uint32_t k_dim, uint32_t v_dim);
};

// What `spec` makes of each layer of a part; layers of the spec are counted over the whole layout. A latent
// has v_bits 0. REQUIRES: a valid part of the layout.
std::vector<LayerCodec> LayerCodecs(const CodecSpec& spec, const Layout& layout, const Part& part);

// Immutable; thread-safe. Layers and heads are counted from 0 within the part.
class SliceMap {
 public:
  // INVALID_ARGUMENT if layout, part or a codec is not valid, or bits are out of range; UNIMPLEMENTED for
  // qpc. sink_tokens: 0, or 4 for block 0. A level that no layer uses is left out of levels().
  static absl::StatusOr<SliceMap> Create(const Layout& layout, const Part& part,
                                         const std::vector<LayerCodec>& codecs, uint32_t sink_tokens);

  int levels() const { return static_cast<int>(level_.size()); }
  uint32_t layers() const { return layers_; }
  uint32_t heads() const { return heads_; }
  uint64_t header_bytes() const { return header_bytes_; }
  Extent level(int level) const { return level_[level]; }
  // The whole slice of one (level, layer, KV head): what a checksum covers. 16-byte aligned; empty if the
  // layer has no such level.
  Extent slice(int level, uint32_t layer, uint32_t head) const;
  // The raw sinks of a layer stand in level 0 before its slices and have a checksum of their own. Empty where
  // sink_tokens is 0 and for a raw layer, whose slices hold all tokens anyway.
  Extent sinks(uint32_t layer) const;
  // All bytes of one layer in one level (its sinks, if any, and its heads): contiguous.
  Extent layer(int level, uint32_t layer) const;

  // Bytes of the object up to the end of its first `levels` levels (levels ≥ 1).
  uint64_t ObjectBytes(int levels) const { return level_[levels - 1].end(); }
  // How many levels an object of `bytes` holds; DATA_LOSS unless the length ends on a level boundary.
  absl::StatusOr<int> LevelsOf(uint64_t bytes) const;
  // Index into the header's checksum table, which has an entry for every sinks extent and slice that is not
  // empty, in the order of the object's bytes. REQUIRES: that extent is not empty.
  size_t ChecksumIndex(int level, uint32_t layer, uint32_t head) const;
  size_t SinkChecksumIndex(uint32_t layer) const;
  size_t checksums() const { return checksums_; }

 private:
  uint32_t layers_ = 0, heads_ = 0;
  uint64_t header_bytes_ = 0;
  size_t checksums_ = 0;
  std::vector<Extent> level_;
  std::vector<Extent> slices_;             // [level][layer][head]
  std::vector<uint32_t> slice_checksums_;  // the same order
  std::vector<Extent> sinks_;              // [layer]
  std::vector<uint32_t> sink_checksums_;
  std::vector<Extent> layer_extents_;  // [level][layer]
};

}  // namespace quire

// Bit-planes in tensor-core fragment order: how the codes of 64 vectors become bytes. The order is part of
// format v1 and is told in full in core/block/README.md; this is the summary.
//
// A block's 64 × d codes are cut into units of 8 values. A lane (m, g, t) with m 0…3, g 0…7, t 0…3 stands at
// 32m + 4g + t and has d/16 units, whose values are numbered j = 0…7:
//
//   key    n = d/32 whole tiles of 32 channels: unit r·n + i, r 0…1, i 0…n−1, is
//            token 16m + 8r + g, channels 32i + 8t + j
//          if d % 32 = 16, the last unit is a tile of 16:
//            token 16m + 8(j>>2) + g, channel 32n + 4t + (j&3)
//   value  unit i is a tile of 16 channels: token 16m + {2t, 2t+1, 2t+8, 2t+9}[j&3],
//            channel 32(i>>1) + 4(i&1) + 8(g>>1) + 2(j>>2) + (g&1)
//          if d % 32 = 16, in the last unit: channel 16i + 4(g>>1) + 2(j>>2) + (g&1)
//
// Units are stored four at a time, then a pair, then one, each kind for all 128 lanes, little-endian:
//
//            two-bit plane (magnitude's first bit at the bit named, the sign one above)   one-bit plane
//   four     two u32, unit i in word i>>1 at bit 4j + 2(i&1)                              u32, bit 4j + i
//   pair     one u32, bit 4j + 2i                                                         u16, bit 2j + i
//   single   u16, bit 2j                                                                  u8, bit j
#pragma once

#include <cstddef>
#include <cstdint>

namespace quire {

enum class FragmentOrder { kKey, kValue };

inline constexpr uint32_t kPlaneTokens = 64;

// Bytes of a plane that holds `bits` bits of each of 64 × dim codes.
constexpr size_t PlaneBytes(uint32_t dim, int bits) { return size_t{kPlaneTokens} * dim / 8 * bits; }

// Where token t's entry stands in arrays with one entry a token (scales, corrections): token 16m + 8h + g at
// 8g + 2m + h.
constexpr size_t TokenSlot(uint32_t token) { return 8 * (token & 7) + 2 * (token >> 4) + (token >> 3 & 1); }

// codes: sign and magnitude of `bits` bits (core/codec/codebook.h), channel-major: channel c of token t at
// c·64 + t.
// planes: bits − 1 pointers, the two-bit plane first, then one-bit planes from the most significant down.
// REQUIRES: IsCodecDim(dim), 2 <= bits <= 8.
void PackPlanes(FragmentOrder order, uint32_t dim, int bits, const uint8_t* codes, uint8_t* const* planes);
// The first kept − 1 planes as codes of `kept` bits.
void UnpackPlanes(FragmentOrder order, uint32_t dim, int kept, const uint8_t* const* planes, uint8_t* codes);

}  // namespace quire

// How the 64 vectors of one head lie in memory while the kernels work on them.
//
// Floats: four tiles of 16 tokens, channel-major, so that tokens stand side by side in a vector register and
// every butterfly, sum over channels and comparison is free of shuffles. Element (channel c, token t) is
// data[(t/16)·tile + c·row + t%16]: `row` 16 and `tile` 16·d keep one tile in the first-level cache, `row` 64
// and `tile` 16 are the plain [d][64] of tests and tools.
//
// Codes: words of eight channels. A code of b bits, shifted up to eight (code << (8 − b)), has a high and a
// low nibble; nibble j of high[8·B… ] word (B, t) is channel 8B + j of token t. Bit 3 of a high nibble is the
// sign, so the three bits below it index any table of at most four bits, whatever b is. Words are what
// bit-planes are made of (units of eight values) and what decoding looks up in, so codes are never bytes on
// the way.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/codec/codebook.h"
#include "core/codec/planes.h"

namespace quire {

inline constexpr uint32_t kTileTokens = 16, kTiles = kPlaneTokens / kTileTokens;

struct Tiles {
  float* data;
  size_t row, tile;  // in floats
  float* at(uint32_t g) const { return data + g * tile; }
};

// Words of one head: (B, t) at B·64 + t. `low` is used where b > 4.
struct CodeWords {
  alignas(64) uint32_t high[kMaxCodecDim / 8 * kPlaneTokens];
  alignas(64) uint32_t low[kMaxCodecDim / 8 * kPlaneTokens];
};

// Working memory of one thread: nothing on the way of a head is allocated.
struct HeadWorkspace {
  alignas(64) float y[kMaxCodecDim * kPlaneTokens];
  CodeWords words;
  CodeWords units;  // the same bits in the order of planes (core/codec/planes.cc)
  alignas(64) float targets[kMaxCodecDim * kTileTokens];  // of a tile that is shaped

  static HeadWorkspace& OfThread();
};

// 64 rows of a strided tensor: row t has `dim` elements of type `dtype` side by side.
// Codes as bytes, [d][64], from and to words.
void WordsFromCodes(uint32_t dim, int bits, const uint8_t* codes, CodeWords* words);
void CodesFromWords(uint32_t dim, int bits, const CodeWords& words, uint8_t* codes);

}  // namespace quire

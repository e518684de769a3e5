// Per-target: words of codes (core/codec/tiles.h) to units in fragment order, units to bit-planes, and back
// (core/codec/planes.h). Everything is a shift, an and, an or of 32-bit lanes; no byte crosses lanes.
//
// Positions: a unit's 128 lanes (m, g, t) are kept as [m][block 0…3][8], eight to a vector:
//   key    block t, eight g:                         lane 32m + 4g + t
//   value  block q = g>>1, eight (t, e = g&1):       lane 32m + 4(2q + e) + t
#if defined(QUIRE_CORE_CODEC_SIMD_UNITS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUIRE_CORE_CODEC_SIMD_UNITS_INL_H_
#undef QUIRE_CORE_CODEC_SIMD_UNITS_INL_H_
#else
#define QUIRE_CORE_CODEC_SIMD_UNITS_INL_H_
#endif

#include <cstring>

#include "core/codec/planes.h"
#include "core/codec/simd/lanes-inl.h"
#include "core/codec/tiles.h"

HWY_BEFORE_NAMESPACE();
namespace quire {
namespace HWY_NAMESPACE {

inline constexpr size_t kUnitWords = 128;

// Two words of sixteen-bit halves: (low a | low b << 16), (high a | high b). Its own inverse.
HWY_INLINE void SwapHalves(VU8& a, VU8& b) {
  const DU8 d;
  VU8 low = hn::Or(hn::And(a, hn::Set(d, 0xFFFFu)), hn::ShiftLeft<16>(b));
  b = hn::Or(hn::ShiftRight<16>(a), hn::And(b, hn::Set(d, 0xFFFF0000u)));
  a = low;
}

// The same for pairs of nibbles of a and b, and for single nibbles of the even and the odd lanes of x.
HWY_INLINE void SwapBytes(VU8& a, VU8& b) {
  const DU8 d;
  VU8 even = hn::Set(d, 0x00FF00FFu);
  VU8 low = hn::Or(hn::And(a, even), hn::ShiftLeft<8>(hn::And(b, even)));
  b = hn::Or(hn::And(hn::ShiftRight<8>(a), even), hn::AndNot(even, b));
  a = low;
}
HWY_INLINE VU8 SwapNibbles(VU8 x) {
  const DU8 d;
  const hn::Repartition<uint64_t, DU8> d64;
  auto wide = hn::BitCast(d64, x);
  auto moved = hn::And(hn::Xor(hn::ShiftRight<28>(wide), wide), hn::Set(d64, uint64_t{0xF0F0F0F0u}));
  return hn::BitCast(d, hn::Xor(wide, hn::Xor(moved, hn::ShiftLeft<28>(moved))));
}

// Words of tokens 16m + {0…7} and 16m + {8…15}, eight channels each, to the two value units that hold them,
// and back.
HWY_INLINE void ValueUnitsOfWords(VU8& a, VU8& b) {
  SwapBytes(a, b);
  a = SwapNibbles(a);
  b = SwapNibbles(b);
  SwapHalves(a, b);
}
HWY_INLINE void WordsOfValueUnits(VU8& a, VU8& b) {
  SwapHalves(a, b);
  a = SwapNibbles(a);
  b = SwapNibbles(b);
  SwapBytes(a, b);
}

// Calls visit(word a, word b, unit a, unit b) with pointers to eight words each, for all pairs of vectors
// whose words and units are not the same vectors (whole tiles of K: there a unit is a word). Words are of one
// nibble; step(a, b) turns them into each other.
template <typename Visit>
HWY_INLINE void ForEachValuePair(uint32_t dim, uint32_t* words, uint32_t* units, Visit visit) {
  uint32_t whole = dim / 32, count = dim / 16;
  for (uint32_t block = 0; block < dim / 8; ++block) {
    bool tail = block >= 4 * whole;
    uint32_t first = tail ? count - 1 : 2 * (block / 4), q = tail ? 2 * (block & 1) : block & 3;
    uint32_t *a = units + first * kUnitWords + 8 * q, *b = tail ? a + 8 : a + kUnitWords;
    for (uint32_t m = 0; m < 4; ++m) {
      uint32_t* word = words + block * kPlaneTokens + 16 * m;
      visit(word, word + 8, a + 32 * m, b + 32 * m);
    }
  }
}
template <typename Visit>
HWY_INLINE void ForEachKeyTailPair(uint32_t dim, uint32_t* words, uint32_t* units, Visit visit) {
  uint32_t whole = dim / 32, last = dim / 16 - 1;
  for (uint32_t half = 0; half < 2; ++half) {
    for (uint32_t m = 0; m < 4; ++m) {
      uint32_t* word = words + (4 * whole + half) * kPlaneTokens + 16 * m;
      uint32_t* unit = units + last * kUnitWords + 32 * m + 16 * half;
      visit(word, word + 8, unit, unit + 8);
    }
  }
}

HWY_MAYBE_UNUSED static HWY_NOINLINE void UnitsOfWords(FragmentOrder order, uint32_t dim, uint32_t* words,
                                                       uint32_t* units) {
  const DU8 d;
  if (order == FragmentOrder::kKey && dim % 32 == 0) return;
  auto convert = [&](auto turn) {
    return [=](const uint32_t* wa, const uint32_t* wb, uint32_t* ua, uint32_t* ub) HWY_ATTR {
      for (size_t l = 0; l < 8; l += kLanes8) {
        VU8 a = hn::Load(d, wa + l), b = hn::Load(d, wb + l);
        turn(a, b);
        hn::Store(a, d, ua + l);
        hn::Store(b, d, ub + l);
      }
    };
  };
  if (order == FragmentOrder::kKey) {
    ForEachKeyTailPair(dim, words, units, convert([](VU8& a, VU8& b) HWY_ATTR { SwapHalves(a, b); }));
  } else {
    ForEachValuePair(dim, words, units, convert([](VU8& a, VU8& b) HWY_ATTR { ValueUnitsOfWords(a, b); }));
  }
}

HWY_MAYBE_UNUSED static HWY_NOINLINE void WordsOfUnits(FragmentOrder order, uint32_t dim, uint32_t* words,
                                                       uint32_t* units) {
  const DU8 d;
  if (order == FragmentOrder::kKey && dim % 32 == 0) return;
  auto convert = [&](auto turn) {
    return [=](uint32_t* wa, uint32_t* wb, const uint32_t* ua, const uint32_t* ub) HWY_ATTR {
      for (size_t l = 0; l < 8; l += kLanes8) {
        VU8 a = hn::Load(d, ua + l), b = hn::Load(d, ub + l);
        turn(a, b);
        hn::Store(a, d, wa + l);
        hn::Store(b, d, wb + l);
      }
    };
  };
  if (order == FragmentOrder::kKey) {
    ForEachKeyTailPair(dim, words, units, convert([](VU8& a, VU8& b) HWY_ATTR { SwapHalves(a, b); }));
  } else {
    ForEachValuePair(dim, words, units, convert([](VU8& a, VU8& b) HWY_ATTR { WordsOfValueUnits(a, b); }));
  }
}

// Where the eight words of (unit, m, block) stand: whole tiles of K in the words themselves, all else among
// the units.
class UnitPlaces {
 public:
  UnitPlaces(FragmentOrder order, uint32_t dim, uint32_t* words, uint32_t* units)
      : words_(words), units_(units), whole_(order == FragmentOrder::kKey ? dim / 32 : 0) {}
  uint32_t* At(uint32_t unit, uint32_t m, uint32_t block) const {
    if (unit >= 2 * whole_) return units_ + unit * kUnitWords + 32 * m + 8 * block;
    uint32_t r = unit >= whole_, i = unit - r * whole_;
    return words_ + (4 * i + block) * kPlaneTokens + 16 * m + 8 * r;
  }

 private:
  uint32_t *words_, *units_;
  uint32_t whole_;
};

// The lane of entry e of (m, block).
HWY_INLINE uint32_t LaneOf(FragmentOrder order, uint32_t m, uint32_t block, uint32_t e) {
  return order == FragmentOrder::kKey ? 32 * m + block + 4 * e : 32 * m + 8 * block + 4 * (e & 1) + (e >> 1);
}

// Bits 4j + {0, 1} to bits 2j + {0, 1}; bits 2j to bits j; and back.
HWY_INLINE VU8 Halve4(VU8 x) {
  const DU8 d;
  x = hn::And(hn::Or(x, hn::ShiftRight<2>(x)), hn::Set(d, 0x0F0F0F0Fu));
  x = hn::And(hn::Or(x, hn::ShiftRight<4>(x)), hn::Set(d, 0x00FF00FFu));
  return hn::And(hn::Or(x, hn::ShiftRight<8>(x)), hn::Set(d, 0xFFFFu));
}
HWY_INLINE VU8 Halve2(VU8 x) {
  const DU8 d;
  x = hn::And(hn::Or(x, hn::ShiftRight<1>(x)), hn::Set(d, 0x3333u));
  x = hn::And(hn::Or(x, hn::ShiftRight<2>(x)), hn::Set(d, 0x0F0Fu));
  return hn::And(hn::Or(x, hn::ShiftRight<4>(x)), hn::Set(d, 0xFFu));
}
HWY_INLINE VU8 Double4(VU8 x) {
  const DU8 d;
  x = hn::And(hn::Or(x, hn::ShiftLeft<8>(x)), hn::Set(d, 0x00FF00FFu));
  x = hn::And(hn::Or(x, hn::ShiftLeft<4>(x)), hn::Set(d, 0x0F0F0F0Fu));
  return hn::And(hn::Or(x, hn::ShiftLeft<2>(x)), hn::Set(d, 0x33333333u));
}
HWY_INLINE VU8 Double2(VU8 x) {
  const DU8 d;
  x = hn::And(hn::Or(x, hn::ShiftLeft<4>(x)), hn::Set(d, 0x0F0Fu));
  x = hn::And(hn::Or(x, hn::ShiftLeft<2>(x)), hn::Set(d, 0x3333u));
  return hn::And(hn::Or(x, hn::ShiftLeft<1>(x)), hn::Set(d, 0x5555u));
}

// Where the fours, the pair and the single unit of a plane begin; a lane's fours follow each other.
struct Sections {
  uint32_t fours, pair, single;  // fours: how many a lane has; pair, single: 0 or 1
  explicit Sections(uint32_t dim) : fours(dim / 64), pair(dim / 32 & 1), single(dim / 16 & 1) {}
  // From a plane's first byte; bits: 2 for the two-bit plane, else 1.
  size_t PairsBegin(size_t bits) const { return kUnitWords * fours * 4 * bits; }
  size_t SinglesBegin(size_t bits) const { return kUnitWords * (fours * 4 + pair * 2) * bits; }
};

}  // namespace HWY_NAMESPACE
}  // namespace quire
HWY_AFTER_NAMESPACE();
#endif

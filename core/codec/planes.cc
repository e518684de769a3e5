#include "core/codec/planes.h"

#include <bit>
#include <cstring>

#include "core/codec/codebook.h"

namespace quire {
namespace {

static_assert(std::endian::native == std::endian::little, "units are moved as 64-bit words");

constexpr uint32_t kLanes = 128;
constexpr uint32_t kMaxUnits = kMaxCodecDim / 16;
constexpr uint64_t kLowNibbles = 0x0F0F0F0F0F0F0F0Fu;

template <typename T>
T Load(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}
template <typename T>
void Store(uint8_t* p, T value) {
  std::memcpy(p, &value, sizeof(T));
}

// Byte b of row a becomes byte a of row b.
void Transpose8x8(uint64_t* rows) {
  for (int i = 0; i < 4; ++i) {
    uint64_t swap = ((rows[i] >> 32) ^ rows[i + 4]) & 0x00000000FFFFFFFFu;
    rows[i + 4] ^= swap;
    rows[i] ^= swap << 32;
  }
  for (int i : {0, 1, 4, 5}) {
    uint64_t swap = ((rows[i] >> 16) ^ rows[i + 2]) & 0x0000FFFF0000FFFFu;
    rows[i + 2] ^= swap;
    rows[i] ^= swap << 16;
  }
  for (int i : {0, 2, 4, 6}) {
    uint64_t swap = ((rows[i] >> 8) ^ rows[i + 1]) & 0x00FF00FF00FF00FFu;
    rows[i + 1] ^= swap;
    rows[i] ^= swap << 8;
  }
}

// Calls visit(row j's byte offset in codes for j = 0…7 as a function, unit index of lane g) for every 8 × 8
// tile of K: eight channel rows of eight tokens g. `offset(j)` is where the eight tokens of value j begin.
template <typename Visit>
void ForEachKeyTile(uint32_t dim, Visit visit) {
  uint32_t units = dim / 16, whole = dim / 32;
  for (uint32_t m = 0; m < 4; ++m) {
    for (uint32_t t = 0; t < 4; ++t) {
      uint32_t first = (32 * m + t) * units;  // lane (m, g = 0, t); g steps by 4 lanes
      for (uint32_t r = 0; r < 2; ++r) {
        for (uint32_t i = 0; i < whole; ++i) {
          visit(first + r * whole + i,
                [=](uint32_t j) { return (32 * i + 8 * t + j) * kPlaneTokens + 16 * m + 8 * r; });
        }
      }
      if (dim % 32 != 0) {
        visit(first + units - 1, [=](uint32_t j) {
          return (32 * whole + 4 * t + (j & 3)) * kPlaneTokens + 16 * m + 8 * (j >> 2);
        });
      }
    }
  }
}

// Calls visit(unit index, offset of the values j = 0, 1 in codes); j = 2, 3 stand 8 bytes, j = 4… two
// channels further.
template <typename Visit>
void ForEachValueUnit(uint32_t dim, Visit visit) {
  uint32_t units = dim / 16;
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    uint32_t m = lane >> 5, g = lane >> 2 & 7, t = lane & 3;
    for (uint32_t i = 0; i < units; ++i) {
      bool alone = i + 1 == units && units % 2 == 1;
      uint32_t channel =
          alone ? 16 * i + 4 * (g >> 1) + (g & 1) : 32 * (i >> 1) + 4 * (i & 1) + 8 * (g >> 1) + (g & 1);
      visit(lane * units + i, channel * kPlaneTokens + 16 * m + 2 * t);
    }
  }
}

// units[lane][unit]: one byte a value.
void GatherUnits(FragmentOrder order, uint32_t dim, const uint8_t* codes, uint64_t* units) {
  uint32_t step = 4 * (dim / 16);
  if (order == FragmentOrder::kKey) {
    ForEachKeyTile(dim, [&](uint32_t unit, auto offset) {
      uint64_t rows[8];
      for (uint32_t j = 0; j < 8; ++j) rows[j] = Load<uint64_t>(codes + offset(j));
      Transpose8x8(rows);
      for (uint32_t g = 0; g < 8; ++g) units[unit + g * step] = rows[g];
    });
  } else {
    ForEachValueUnit(dim, [&](uint32_t unit, uint32_t offset) {
      const uint8_t *a = codes + offset, *b = a + 2 * kPlaneTokens;
      units[unit] = uint64_t{Load<uint16_t>(a)} | uint64_t{Load<uint16_t>(a + 8)} << 16 |
                    uint64_t{Load<uint16_t>(b)} << 32 | uint64_t{Load<uint16_t>(b + 8)} << 48;
    });
  }
}

void ScatterUnits(FragmentOrder order, uint32_t dim, const uint64_t* units, uint8_t* codes) {
  uint32_t step = 4 * (dim / 16);
  if (order == FragmentOrder::kKey) {
    ForEachKeyTile(dim, [&](uint32_t unit, auto offset) {
      uint64_t rows[8];
      for (uint32_t g = 0; g < 8; ++g) rows[g] = units[unit + g * step];
      Transpose8x8(rows);
      for (uint32_t j = 0; j < 8; ++j) Store(codes + offset(j), rows[j]);
    });
  } else {
    ForEachValueUnit(dim, [&](uint32_t unit, uint32_t offset) {
      uint8_t *a = codes + offset, *b = a + 2 * kPlaneTokens;
      uint64_t v = units[unit];
      Store(a, static_cast<uint16_t>(v));
      Store(a + 8, static_cast<uint16_t>(v >> 16));
      Store(b, static_cast<uint16_t>(v >> 32));
      Store(b + 8, static_cast<uint16_t>(v >> 48));
    });
  }
}

// Byte j's low nibble to bits 4j…4j+3, and back.
uint32_t Nibbles(uint64_t x) {
  x = (x | x >> 4) & 0x00FF00FF00FF00FFu;
  x = (x | x >> 8) & 0x0000FFFF0000FFFFu;
  return static_cast<uint32_t>(x | x >> 16);
}
uint64_t Spread(uint32_t nibbles) {
  uint64_t x = nibbles;
  x = (x | x << 16) & 0x0000FFFF0000FFFFu;
  x = (x | x << 8) & 0x00FF00FF00FF00FFu;
  return (x | x << 4) & kLowNibbles;
}
// Bits 4j + {0, 1} to bits 2j + {0, 1}; bits 2j to bits j; and back.
uint32_t Halve4(uint32_t x) {
  x = (x | x >> 2) & 0x0F0F0F0Fu;
  x = (x | x >> 4) & 0x00FF00FFu;
  return (x | x >> 8) & 0xFFFFu;
}
uint32_t Halve2(uint32_t x) {
  x = (x | x >> 1) & 0x3333u;
  x = (x | x >> 2) & 0x0F0Fu;
  return (x | x >> 4) & 0xFFu;
}
uint32_t Double4(uint32_t x) {
  x = (x | x << 8) & 0x00FF00FFu;
  x = (x | x << 4) & 0x0F0F0F0Fu;
  return (x | x << 2) & 0x33333333u;
}
uint32_t Double2(uint32_t x) {
  x = (x | x << 4) & 0x0F0Fu;
  x = (x | x << 2) & 0x3333u;
  return (x | x << 1) & 0x5555u;
}

// Where the fours, the pair and the single unit of a plane begin; a lane's fours follow each other.
struct Sections {
  uint32_t fours, pair, single;  // fours: how many a lane has; pair, single: 0 or 1
  Sections(uint32_t dim) : fours(dim / 64), pair(dim / 32 & 1), single(dim / 16 & 1) {}
  size_t Four(uint32_t lane, uint32_t i, size_t bits) const { return (lane * fours + i) * 4 * bits; }
  size_t Pair(uint32_t lane, size_t bits) const { return kLanes * fours * 4 * bits + lane * 2 * bits; }
  size_t Single(uint32_t lane, size_t bits) const {
    return kLanes * (fours * 4 + pair * 2) * bits + lane * bits;
  }
};

// A unit's codes, aligned to the top of a byte, as two words of nibbles: the first four bits and the last
// four.
struct UnitBits {
  uint32_t high, low;
  uint32_t Crumbs() const { return high >> 2 & 0x33333333u; }
  // The one-bit plane p (1 = the first after the two-bit plane), at bits 4j.
  uint32_t Bit(int p) const { return (p <= 2 ? high >> (2 - p) : low >> (6 - p)) & 0x11111111u; }
  void AddBit(int p, uint32_t bit) { p <= 2 ? high |= bit << (2 - p) : low |= bit << (6 - p); }
};

}  // namespace

void PackPlanes(FragmentOrder order, uint32_t dim, int bits, const uint8_t* codes, uint8_t* const* planes) {
  uint64_t units[kLanes * kMaxUnits];
  GatherUnits(order, dim, codes, units);
  Sections at(dim);
  const uint64_t* unit = units;
  auto next = [&] {
    uint64_t top = *unit++ << (8 - bits);
    return UnitBits{Nibbles(top >> 4 & kLowNibbles), bits > 4 ? Nibbles(top & kLowNibbles) : 0};
  };
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    for (uint32_t i = 0; i < at.fours; ++i) {
      UnitBits a = next(), b = next(), c = next(), d = next();
      uint8_t* crumbs = planes[0] + at.Four(lane, i, 2);
      Store(crumbs, a.Crumbs() | b.Crumbs() << 2);
      Store(crumbs + 4, c.Crumbs() | d.Crumbs() << 2);
      for (int p = 1; p < bits - 1; ++p) {
        Store(planes[p] + at.Four(lane, i, 1), a.Bit(p) | b.Bit(p) << 1 | c.Bit(p) << 2 | d.Bit(p) << 3);
      }
    }
    if (at.pair) {
      UnitBits a = next(), b = next();
      Store(planes[0] + at.Pair(lane, 2), a.Crumbs() | b.Crumbs() << 2);
      for (int p = 1; p < bits - 1; ++p) {
        Store(planes[p] + at.Pair(lane, 1), static_cast<uint16_t>(Halve4(a.Bit(p) | b.Bit(p) << 1)));
      }
    }
    if (at.single) {
      UnitBits a = next();
      Store(planes[0] + at.Single(lane, 2), static_cast<uint16_t>(Halve4(a.Crumbs())));
      for (int p = 1; p < bits - 1; ++p) {
        Store(planes[p] + at.Single(lane, 1), static_cast<uint8_t>(Halve2(Halve4(a.Bit(p)))));
      }
    }
  }
}

void UnpackPlanes(FragmentOrder order, uint32_t dim, int kept, const uint8_t* const* planes, uint8_t* codes) {
  uint64_t units[kLanes * kMaxUnits];
  Sections at(dim);
  uint64_t* unit = units;
  auto put = [&](const UnitBits& bits) {
    uint64_t top = Spread(bits.high) << 4 | (kept > 4 ? Spread(bits.low) : 0);
    *unit++ = top >> (8 - kept);  // the bits below `kept` are zero, so nothing crosses into the next byte
  };
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    for (uint32_t i = 0; i < at.fours; ++i) {
      uint32_t first = Load<uint32_t>(planes[0] + at.Four(lane, i, 2));
      uint32_t second = Load<uint32_t>(planes[0] + at.Four(lane, i, 2) + 4);
      UnitBits u[4] = {{(first & 0x33333333u) << 2, 0},
                       {first & 0xCCCCCCCCu, 0},
                       {(second & 0x33333333u) << 2, 0},
                       {second & 0xCCCCCCCCu, 0}};
      for (int p = 1; p < kept - 1; ++p) {
        uint32_t word = Load<uint32_t>(planes[p] + at.Four(lane, i, 1));
        for (int k = 0; k < 4; ++k) u[k].AddBit(p, word >> k & 0x11111111u);
      }
      for (const UnitBits& bits : u) put(bits);
    }
    if (at.pair) {
      uint32_t crumbs = Load<uint32_t>(planes[0] + at.Pair(lane, 2));
      UnitBits u[2] = {{(crumbs & 0x33333333u) << 2, 0}, {crumbs & 0xCCCCCCCCu, 0}};
      for (int p = 1; p < kept - 1; ++p) {
        uint32_t word = Double4(Load<uint16_t>(planes[p] + at.Pair(lane, 1)));
        for (int k = 0; k < 2; ++k) u[k].AddBit(p, word >> k & 0x11111111u);
      }
      for (const UnitBits& bits : u) put(bits);
    }
    if (at.single) {
      UnitBits u{Double4(Load<uint16_t>(planes[0] + at.Single(lane, 2))) << 2, 0};
      for (int p = 1; p < kept - 1; ++p) u.AddBit(p, Double4(Double2(planes[p][at.Single(lane, 1)])));
      put(u);
    }
  }
  ScatterUnits(order, dim, units, codes);
}

}  // namespace quire

// Per-target: bit-planes of units. Nibble j of a unit's word is value j (core/codec/planes.h).
#if defined(QUIRE_CORE_CODEC_SIMD_PLANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUIRE_CORE_CODEC_SIMD_PLANES_INL_H_
#undef QUIRE_CORE_CODEC_SIMD_PLANES_INL_H_
#else
#define QUIRE_CORE_CODEC_SIMD_PLANES_INL_H_
#endif

#include "core/codec/simd/units-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quire {
namespace HWY_NAMESPACE {

// One-bit plane p (1 = the first after the two-bit plane) is bit PlaneBit(p) of the high nibbles (p ≤ 2) or
// of the low ones.
constexpr int PlaneBit(int p) { return p <= 2 ? 2 - p : 6 - p; }

// The words of up to four units of eight lanes.
template <int kUnits>
struct UnitGroup {
  VU8 high[kUnits], low[kUnits];

  HWY_INLINE VU8 Crumbs(int first) const {
    const DU8 d;
    VU8 even = hn::And(hn::ShiftRight<2>(high[first]), hn::Set(d, 0x33333333u));
    if (kUnits == 1) return even;
    return hn::Or(even, hn::And(high[first + 1], hn::Set(d, 0xCCCCCCCCu)));
  }
  HWY_INLINE void AddCrumbs(int first, VU8 crumbs) {
    const DU8 d;
    high[first] = hn::ShiftLeft<2>(hn::And(crumbs, hn::Set(d, 0x33333333u)));
    if (kUnits > 1) high[first + 1] = hn::And(crumbs, hn::Set(d, 0xCCCCCCCCu));
  }
  HWY_INLINE VU8 Bits(int p) const {
    const DU8 d;
    const VU8* from = p <= 2 ? high : low;
    VU8 bits = hn::Zero(d);
    for (int k = 0; k < kUnits; ++k) {
      VU8 bit = hn::And(hn::ShiftRightSame(from[k], PlaneBit(p)), hn::Set(d, 0x11111111u));
      bits = hn::Or(bits, hn::ShiftLeftSame(bit, k));
    }
    return bits;
  }
  HWY_INLINE void AddBits(int p, VU8 bits) {
    const DU8 d;
    VU8* to = p <= 2 ? high : low;
    for (int k = 0; k < kUnits; ++k) {
      VU8 bit = hn::And(hn::ShiftRightSame(bits, k), hn::Set(d, 0x11111111u));
      to[k] = hn::Or(to[k], hn::ShiftLeftSame(bit, PlaneBit(p)));
    }
  }
};

// Where (m, block) of the units of one head are, and the lanes its entries belong to.
struct HeadUnits {
  FragmentOrder order;
  uint32_t dim;
  int bits;
  UnitPlaces high, low;

  HeadUnits(FragmentOrder order_in, uint32_t dim_in, int bits_in, CodeWords* words, CodeWords* units)
      : order(order_in),
        dim(dim_in),
        bits(bits_in),
        high(order, dim, words->high, units->high),
        low(order, dim, words->low, units->low) {}
  uint32_t lane(uint32_t m, uint32_t block) const { return LaneOf(order, m, block, 0); }
  // Lanes of the entries 0…7, from lane().
  const uint32_t* steps() const {
    static constexpr uint32_t kKeySteps[8] = {0, 4, 8, 12, 16, 20, 24, 28},
                              kValueSteps[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    return order == FragmentOrder::kKey ? kKeySteps : kValueSteps;
  }

  template <int kUnits>
  HWY_INLINE UnitGroup<kUnits> LoadGroup(uint32_t unit, uint32_t m, uint32_t block, size_t l) const {
    const DU8 d;
    UnitGroup<kUnits> group;
    for (int k = 0; k < kUnits; ++k) {
      group.high[k] = hn::Load(d, high.At(unit + k, m, block) + l);
      if (bits > 4) group.low[k] = hn::Load(d, low.At(unit + k, m, block) + l);
    }
    return group;
  }
  template <int kUnits>
  HWY_INLINE void StoreGroup(const UnitGroup<kUnits>& group, uint32_t unit, uint32_t m, uint32_t block,
                             size_t l) const {
    const DU8 d;
    for (int k = 0; k < kUnits; ++k) {
      hn::Store(group.high[k], d, high.At(unit + k, m, block) + l);
      if (bits > 4) hn::Store(group.low[k], d, low.At(unit + k, m, block) + l);
    }
  }
};

// Where the entries of eight lanes are, from the first lane's.
struct LanePlaces {
  alignas(32) int32_t at[8];
  LanePlaces(const uint32_t* steps, size_t each) {
    for (size_t e = 0; e < 8; ++e) at[e] = static_cast<int32_t>(steps[e] * each);
  }
  template <typename T, typename Value>
  HWY_INLINE void Scatter(const Value* HWY_RESTRICT values, size_t l, uint8_t* HWY_RESTRICT to) const {
#pragma GCC unroll 8
    for (size_t e = 0; e < kLanes8; ++e) {
      T value = static_cast<T>(values[e]);
      std::memcpy(to + at[l + e], &value, sizeof(T));
    }
  }
  template <typename T, typename Value>
  HWY_INLINE void Gather(const uint8_t* HWY_RESTRICT from, size_t l, Value* HWY_RESTRICT values) const {
#pragma GCC unroll 8
    for (size_t e = 0; e < kLanes8; ++e) {
      T value;
      std::memcpy(&value, from + at[l + e], sizeof(T));
      values[e] = value;
    }
  }
};

// Words of two vectors, lane by lane, in memory and back.
HWY_INLINE void StorePairs(VU8 first, VU8 second, uint64_t* pairs) {
  hn::StoreInterleaved2(first, second, DU8(), reinterpret_cast<uint32_t*>(pairs));
}
HWY_INLINE void LoadPairs(const uint64_t* pairs, VU8& first, VU8& second) {
  hn::LoadInterleaved2(DU8(), reinterpret_cast<const uint32_t*>(pairs), first, second);
}

// The word of every lane, and of lanes that have two words the first and the second. Gathered where the
// target is quick at it; elsewhere by way of memory.
HWY_INLINE VU8 GatherLanes(const LanePlaces& places, const uint8_t* from, size_t l) {
  const DU8 d;
  if constexpr (kLanes == 16) {
    const hn::RebindToSigned<DU8> di;
    return hn::GatherOffset(d, reinterpret_cast<const uint32_t*>(from), hn::Load(di, places.at + l));
  }
  alignas(32) uint32_t words[8];
  places.Gather<uint32_t>(from, l, words);
  return hn::Load(d, words);
}
HWY_INLINE void GatherLanePairs(const LanePlaces& places, const uint8_t* from, size_t l, VU8& first,
                                VU8& second) {
  if constexpr (kLanes == 16) {
    first = GatherLanes(places, from, l);
    second = GatherLanes(places, from + sizeof(uint32_t), l);
    return;
  }
  alignas(32) uint64_t pairs[8];
  places.Gather<uint64_t>(from, l, pairs);
  LoadPairs(pairs, first, second);
}

// A lane's entry of section kUnits (4, 2, 1): bytes of T in a one-bit plane, twice that in the two-bit plane.
template <int kUnits>
using PlaneWord =
    std::conditional_t<kUnits == 4, uint32_t, std::conditional_t<kUnits == 2, uint16_t, uint8_t>>;

template <int kUnits>
HWY_INLINE VU8 Narrow(VU8 bits) {
  if constexpr (kUnits == 4) return bits;
  if constexpr (kUnits == 2) return Halve4(bits);
  return Halve2(Halve4(bits));
}
template <int kUnits>
HWY_INLINE VU8 Widen(VU8 bits) {
  if constexpr (kUnits == 4) return bits;
  if constexpr (kUnits == 2) return Double4(bits);
  return Double4(Double2(bits));
}

// Units unit…unit + kUnits − 1 of all lanes; `index`-th of `per_lane` such groups of a lane, sections
// beginning at the given offsets of the two-bit and the one-bit planes.
template <int kUnits>
HWY_NOINLINE void PackSection(const HeadUnits& units, uint32_t unit, uint32_t index, uint32_t per_lane,
                              size_t crumbs_begin, size_t bits_begin, uint8_t* const* planes) {
  using Word = PlaneWord<kUnits>;
  const DU8 d;
  const size_t each = sizeof(Word) * per_lane;
  const LanePlaces places(units.steps(), each), crumb_places(units.steps(), 2 * each);
  alignas(32) uint32_t words[8];
  alignas(32) uint64_t pairs[8];
  for (uint32_t m = 0; m < 4; ++m) {
    for (uint32_t block = 0; block < 4; ++block) {
      for (size_t l = 0; l < 8; l += kLanes8) {
        size_t lane = units.lane(m, block);
        auto group = units.template LoadGroup<kUnits>(unit, m, block, l);
        uint8_t* crumbs = planes[0] + crumbs_begin + 2 * (lane * each + index * sizeof(Word));
        if constexpr (kUnits == 4) {
          StorePairs(group.Crumbs(0), group.Crumbs(2), pairs);
          crumb_places.Scatter<uint64_t>(pairs, l, crumbs);
        } else if constexpr (kUnits == 2) {
          hn::Store(group.Crumbs(0), d, words);
          crumb_places.Scatter<uint32_t>(words, l, crumbs);
        } else {
          hn::Store(Halve4(group.Crumbs(0)), d, words);
          crumb_places.Scatter<uint16_t>(words, l, crumbs);
        }
        for (int p = 1; p < units.bits - 1; ++p) {
          hn::Store(Narrow<kUnits>(group.Bits(p)), d, words);
          places.Scatter<Word>(words, l, planes[p] + bits_begin + lane * each + index * sizeof(Word));
        }
      }
    }
  }
}

template <int kUnits>
HWY_NOINLINE void UnpackSection(const HeadUnits& units, uint32_t unit, uint32_t index, uint32_t per_lane,
                                size_t crumbs_begin, size_t bits_begin, const uint8_t* const* planes) {
  using Word = PlaneWord<kUnits>;
  const DU8 d;
  const size_t each = sizeof(Word) * per_lane;
  const LanePlaces places(units.steps(), each), crumb_places(units.steps(), 2 * each);
  alignas(32) uint32_t words[8];
  for (uint32_t m = 0; m < 4; ++m) {
    for (uint32_t block = 0; block < 4; ++block) {
      for (size_t l = 0; l < 8; l += kLanes8) {
        size_t lane = units.lane(m, block);
        UnitGroup<kUnits> group;
        const uint8_t* crumbs = planes[0] + crumbs_begin + 2 * (lane * each + index * sizeof(Word));
        if constexpr (kUnits == 4) {
          VU8 first, second;
          GatherLanePairs(crumb_places, crumbs, l, first, second);
          group.AddCrumbs(0, first);
          group.AddCrumbs(2, second);
        } else if constexpr (kUnits == 2) {
          group.AddCrumbs(0, GatherLanes(crumb_places, crumbs, l));
        } else {
          crumb_places.Gather<uint16_t>(crumbs, l, words);
          group.AddCrumbs(0, Double4(hn::Load(d, words)));
        }
        for (int k = 0; k < kUnits; ++k) group.low[k] = hn::Zero(d);
        for (int p = 1; p < units.bits - 1; ++p) {
          const uint8_t* plane = planes[p] + bits_begin + lane * each + index * sizeof(Word);
          if constexpr (kUnits == 4) {
            group.AddBits(p, GatherLanes(places, plane, l));
          } else {
            places.Gather<Word>(plane, l, words);
            group.AddBits(p, Widen<kUnits>(hn::Load(d, words)));
          }
        }
        units.template StoreGroup<kUnits>(group, unit, m, block, l);
      }
    }
  }
}

// Words to planes; `units` is working memory.
HWY_MAYBE_UNUSED static HWY_NOINLINE void PackHead(FragmentOrder order, uint32_t dim, int bits,
                                                   CodeWords* words, CodeWords* units,
                                                   uint8_t* const* planes) {
  UnitsOfWords(order, dim, words->high, units->high);
  if (bits > 4) UnitsOfWords(order, dim, words->low, units->low);
  HeadUnits head(order, dim, bits, words, units);
  Sections at(dim);
  for (uint32_t f = 0; f < at.fours; ++f) PackSection<4>(head, 4 * f, f, at.fours, 0, 0, planes);
  if (at.pair) PackSection<2>(head, 4 * at.fours, 0, 1, at.PairsBegin(2), at.PairsBegin(1), planes);
  if (at.single) PackSection<1>(head, dim / 16 - 1, 0, 1, at.SinglesBegin(2), at.SinglesBegin(1), planes);
}

// The first kept − 1 planes as words of codes of `kept` bits.
HWY_MAYBE_UNUSED static HWY_NOINLINE void UnpackHead(FragmentOrder order, uint32_t dim, int kept,
                                                     const uint8_t* const* planes, CodeWords* words,
                                                     CodeWords* units) {
  HeadUnits head(order, dim, kept, words, units);
  Sections at(dim);
  for (uint32_t f = 0; f < at.fours; ++f) UnpackSection<4>(head, 4 * f, f, at.fours, 0, 0, planes);
  if (at.pair) UnpackSection<2>(head, 4 * at.fours, 0, 1, at.PairsBegin(2), at.PairsBegin(1), planes);
  if (at.single) UnpackSection<1>(head, dim / 16 - 1, 0, 1, at.SinglesBegin(2), at.SinglesBegin(1), planes);
  WordsOfUnits(order, dim, words->high, units->high);
  if (kept > 4) WordsOfUnits(order, dim, words->low, units->low);
}

}  // namespace HWY_NAMESPACE
}  // namespace quire
HWY_AFTER_NAMESPACE();
#endif

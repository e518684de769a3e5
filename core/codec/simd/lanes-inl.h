// Per-target building blocks: tables in registers, transposes, and 16-bit floats. Included once a target.
#if defined(QUIRE_CORE_CODEC_SIMD_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUIRE_CORE_CODEC_SIMD_LANES_INL_H_
#undef QUIRE_CORE_CODEC_SIMD_LANES_INL_H_
#else
#define QUIRE_CORE_CODEC_SIMD_LANES_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quire {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Sixteen tokens are 1, 2 or 4 vectors.
using DF = hn::CappedTag<float, 16>;
using DU = hn::RebindToUnsigned<DF>;
using DI = hn::RebindToSigned<DF>;
using VF = hn::Vec<DF>;
using VU = hn::Vec<DU>;
using VI = hn::Vec<DI>;
inline constexpr size_t kLanes = hn::MaxLanes(DF());
static_assert(kLanes == 4 || kLanes == 8 || kLanes == 16, "a tile row is whole vectors");

// Planes work on at most eight lanes.
using DU8 = hn::CappedTag<uint32_t, 8>;
using DF8 = hn::RebindToFloat<DU8>;
using VU8 = hn::Vec<DU8>;
using VF8 = hn::Vec<DF8>;
inline constexpr size_t kLanes8 = hn::MaxLanes(DU8());

// table[index], index < kEntries, in every lane. `table` has room for a vector beyond small tables.
template <size_t kEntries>
HWY_INLINE VF Lookup(const float* table, VU index) {
  const DF df;
  const DU du;
  const DI di;
  // From 64 entries on eight lanes, permutes and blends cost more than fetching each lane's.
  if constexpr (kLanes < 8 || (kLanes == 8 && kEntries >= 64)) {
    return hn::GatherIndex(df, table, hn::BitCast(di, index));
  } else if constexpr (kEntries <= kLanes) {
    return hn::TableLookupLanes(hn::Load(df, table), hn::IndicesFromVec(df, index));
  } else {
    auto upper = hn::RebindMask(df, hn::TestBit(index, hn::Set(du, kEntries / 2)));
    VU within = hn::And(index, hn::Set(du, kEntries / 2 - 1));
    return hn::IfThenElse(upper, Lookup<kEntries / 2>(table + kEntries / 2, within),
                          Lookup<kEntries / 2>(table, within));
  }
}

// table[word & 7] in every lane, of tables that hold their eight entries twice: what else a word holds does
// not matter to the instruction, so nothing is masked off.
HWY_INLINE VF LookupMagnitude(const float* table, VU word) {
#if HWY_TARGET == HWY_AVX3
  return VF{_mm512_permutexvar_ps(word.raw, hn::Load(DF(), table).raw)};
#elif HWY_TARGET == HWY_AVX2
  return VF{_mm256_permutevar8x32_ps(hn::Load(DF(), table).raw, word.raw)};
#else
  return Lookup<8>(table, hn::And(word, hn::Set(DU(), 7u)));
#endif
}

// Lane l of r[k] becomes lane k of r[l], for as many vectors as there are lanes: 4, 8 or 16.
template <class D>
HWY_INLINE void TransposeLanes(D d, hn::Vec<D>* HWY_RESTRICT r) {
  constexpr size_t kN = hn::MaxLanes(D());
  using V = hn::Vec<D>;
  const hn::Repartition<uint64_t, D> d64;
  V t[kN];
#pragma GCC unroll 16
  for (size_t k = 0; k < kN; k += 2) {
    t[k] = hn::InterleaveLower(d, r[k], r[k + 1]);
    t[k + 1] = hn::InterleaveUpper(d, r[k], r[k + 1]);
  }
  auto lower = [&](V a, V b) HWY_ATTR {
    return hn::BitCast(d, hn::InterleaveLower(d64, hn::BitCast(d64, a), hn::BitCast(d64, b)));
  };
  auto upper = [&](V a, V b) HWY_ATTR {
    return hn::BitCast(d, hn::InterleaveUpper(d64, hn::BitCast(d64, a), hn::BitCast(d64, b)));
  };
#pragma GCC unroll 16
  for (size_t k = 0; k < kN; k += 4) {
    r[k] = lower(t[k], t[k + 2]);
    r[k + 1] = upper(t[k], t[k + 2]);
    r[k + 2] = lower(t[k + 1], t[k + 3]);
    r[k + 3] = upper(t[k + 1], t[k + 3]);
  }
  // Now block i of r[4a + k] is block a of result 4i + k: blocks of 128 bits are transposed.
  if constexpr (kN == 8) {
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      V low = r[k], high = r[k + 4];
      r[k] = hn::ConcatLowerLower(d, high, low);
      r[k + 4] = hn::ConcatUpperUpper(d, high, low);
    }
  }
  if constexpr (kN == 16) {
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      V even[2], odd[2];
      for (size_t h = 0; h < 2; ++h) {
        V a = r[8 * h + k], b = r[8 * h + 4 + k];
        even[h] = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(b), a);
        odd[h] = hn::OddEvenBlocks(b, hn::SwapAdjacentBlocks(a));
      }
      r[k] = hn::ConcatLowerLower(d, even[1], even[0]);
      r[4 + k] = hn::ConcatLowerLower(d, odd[1], odd[0]);
      r[8 + k] = hn::ConcatUpperUpper(d, even[1], even[0]);
      r[12 + k] = hn::ConcatUpperUpper(d, odd[1], odd[0]);
    }
  }
}

// As FromF16 (core/base/float16.h), of the low 16 bits of each lane; the others are zero.
template <class D>
HWY_INLINE hn::Vec<D> F16ToF32Bits(D d, hn::Vec<D> half) {
  const hn::RebindToFloat<D> df;
  auto sign = hn::ShiftLeft<16>(hn::And(half, hn::Set(d, 0x8000u)));
  auto magnitude = hn::ShiftLeft<13>(hn::And(half, hn::Set(d, 0x7FFFu)));
  auto value = hn::BitCast(d, hn::Mul(hn::BitCast(df, magnitude), hn::Set(df, 0x1p112f)));
  auto special = hn::Gt(magnitude, hn::Set(d, 0x0F7FFFFFu));
  return hn::Or(sign, hn::IfThenElse(special, hn::Or(magnitude, hn::Set(d, 0x70000000u)), value));
}

// As ToF16, in the low 16 bits of each lane.
template <class D>
HWY_INLINE hn::Vec<D> F32ToF16Bits(D d, hn::Vec<D> bits) {
  const hn::RebindToFloat<D> df;
  auto sign = hn::ShiftRight<16>(hn::And(bits, hn::Set(d, 0x80000000u)));
  auto magnitude = hn::And(bits, hn::Set(d, 0x7FFFFFFFu));
  auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(d, 1u));
  auto normal = hn::ShiftRight<13>(
      hn::Sub(hn::Add(hn::Add(magnitude, hn::Set(d, 0xFFFu)), odd), hn::Set(d, 0x38000000u)));
  auto shifted = hn::Add(hn::BitCast(df, magnitude), hn::Set(df, 0.5f));
  auto subnormal = hn::Sub(hn::BitCast(d, shifted), hn::Set(d, 0x3F000000u));
  auto half = hn::IfThenElse(hn::Gt(hn::Set(d, 0x38800000u), magnitude), subnormal, normal);
  half = hn::IfThenElse(hn::Gt(magnitude, hn::Set(d, 0x477FEFFFu)), hn::Set(d, 0x7C00u), half);
  half = hn::IfThenElse(hn::Gt(magnitude, hn::Set(d, 0x7F800000u)), hn::Set(d, 0x7E00u), half);
  return hn::Or(sign, half);
}

// As ToBf16, in the upper 16 bits of each lane; the lower bits are left over. kFinite: there is no NaN.
template <bool kFinite = false, class D>
HWY_INLINE hn::Vec<D> RoundToBf16(D d, hn::Vec<hn::RebindToFloat<D>> value) {
  auto bits = hn::BitCast(d, value);
  auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1u));
  auto rounded = hn::Add(hn::Add(bits, hn::Set(d, 0x7FFFu)), odd);
  if constexpr (kFinite) return rounded;
  return hn::IfThenElse(hn::RebindMask(d, hn::IsNaN(value)), hn::Or(bits, hn::Set(d, 0x400000u)), rounded);
}

}  // namespace HWY_NAMESPACE
}  // namespace quire
HWY_AFTER_NAMESPACE();
#endif

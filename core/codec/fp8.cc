#include "core/codec/fp8.h"

#include <bit>
#include <cstring>

#include "core/base/float16.h"
#include "core/codec/codebook.h"
#include "core/codec/planes.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/codec/fp8.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "core/codec/simd/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quire {
namespace HWY_NAMESPACE {
namespace {

constexpr size_t kPartialSums = 16;
using DU8Bytes = hn::Rebind<uint8_t, DU>;
using DU16Halves = hn::Rebind<uint16_t, DU>;

// Elements at + 0…kLanes−1 as floats.
template <DType kType>
HWY_INLINE VF LoadFloats(const uint8_t* row, size_t at) {
  const DF df;
  const DU du;
  if constexpr (kType == DType::kF32) {
    return hn::LoadU(df, reinterpret_cast<const float*>(row) + at);
  } else {
    VU bits = hn::PromoteTo(du, hn::LoadU(DU16Halves(), reinterpret_cast<const uint16_t*>(row) + at));
    return hn::BitCast(df, kType == DType::kBf16 ? hn::ShiftLeft<16>(bits) : F16ToF32Bits(du, bits));
  }
}

template <DType kType>
HWY_INLINE void StoreFloats(VF x, uint8_t* row, size_t at) {
  const DU du;
  if constexpr (kType == DType::kF32) {
    hn::StoreU(x, DF(), reinterpret_cast<float*>(row) + at);
  } else {
    VU bits =
        kType == DType::kBf16 ? hn::ShiftRight<16>(RoundToBf16(du, x)) : F32ToF16Bits(du, hn::BitCast(du, x));
    hn::StoreU(hn::DemoteTo(DU16Halves(), hn::BitCast(DI(), bits)), DU16Halves(),
               reinterpret_cast<uint16_t*>(row) + at);
  }
}

// e4m3 of |v| < 464, round to nearest even.
HWY_INLINE VU CodeOf(VF v) {
  const DU du;
  VU bits = hn::BitCast(du, v), magnitude = hn::And(bits, hn::Set(du, 0x7FFFFFFFu));
  VU odd = hn::And(hn::ShiftRight<20>(magnitude), hn::Set(du, 1u));
  VU normal = hn::Sub(hn::ShiftRight<20>(hn::Add(hn::Add(magnitude, hn::Set(du, 0x7FFFFu)), odd)),
                      hn::Set(du, 120u << 3));
  // Below 2^-6 the addition rounds to steps of 2^-9.
  VF shifted = hn::Add(hn::BitCast(DF(), magnitude), hn::Set(DF(), 0x1p14f));
  VU subnormal = hn::Sub(hn::BitCast(du, shifted), hn::Set(du, std::bit_cast<uint32_t>(0x1p14f)));
  VU code =
      hn::IfThenElse(hn::Gt(hn::Set(du, std::bit_cast<uint32_t>(0x1p-6f)), magnitude), subnormal, normal);
  return hn::Or(code, hn::And(hn::ShiftRight<24>(bits), hn::Set(du, 0x80u)));
}

HWY_INLINE VF ValueOf(VU code) {
  const DF df;
  const DU du;
  VU sign = hn::ShiftLeft<24>(hn::And(code, hn::Set(du, 0x80u))),
     magnitude = hn::And(code, hn::Set(du, 0x7Fu));
  VF normal = hn::BitCast(df, hn::Add(hn::ShiftLeft<20>(magnitude), hn::Set(du, 120u << 23)));
  VF subnormal = hn::Mul(hn::ConvertTo(df, hn::BitCast(DI(), magnitude)), hn::Set(df, 0x1p-9f));
  auto small = hn::RebindMask(df, hn::Gt(hn::Set(du, 8u), magnitude));
  return hn::BitCast(df, hn::Or(hn::BitCast(du, hn::IfThenElse(small, subnormal, normal)), sign));
}

// Adds the partial sums pairwise.
double Total(const VF* sums) {
  alignas(64) float lanes[kPartialSums];
  for (size_t i = 0; i < kPartialSums / kLanes; ++i) hn::Store(sums[i], DF(), lanes + i * kLanes);
  for (size_t n = kPartialSums / 2; n > 0; n /= 2) {
    for (size_t i = 0; i < n; ++i) lanes[i] += lanes[i + n];
  }
  return lanes[0];
}

// The row as floats, and the bits of its largest magnitude: beyond 0x7F7FFFFF if there is a NaN or an
// infinity.
template <DType kType>
HWY_INLINE uint32_t LoadRow(const uint8_t* HWY_RESTRICT row, uint32_t dim, float* HWY_RESTRICT x) {
  const DU du;
  VU most = hn::Zero(du);
  for (uint32_t c = 0; c < dim; c += kLanes) {
    VF v = LoadFloats<kType>(row, c);
    hn::Store(v, DF(), x + c);
    most = hn::Max(most, hn::And(hn::BitCast(du, v), hn::Set(du, 0x7FFFFFFFu)));
  }
  alignas(64) uint32_t lanes[kLanes];
  hn::Store(most, du, lanes);
  uint32_t largest = 0;
  for (uint32_t lane : lanes) largest = lane > largest ? lane : largest;
  return largest;
}

HWY_INLINE void CodeRow(const float* HWY_RESTRICT x, uint32_t dim, float scale, uint8_t* HWY_RESTRICT codes,
                        Fp8Error* measured) {
  const DF df;
  VF energy[kPartialSums / kLanes], error[kPartialSums / kLanes];
  for (size_t i = 0; i < kPartialSums / kLanes; ++i) energy[i] = error[i] = hn::Zero(df);
  const VF divisor = hn::Set(df, scale);
  for (uint32_t c = 0; c < dim; c += kPartialSums) {
    for (uint32_t i = 0; i < kPartialSums / kLanes; ++i) {
      uint32_t at = c + i * static_cast<uint32_t>(kLanes);
      VF v = hn::Div(hn::Load(df, x + at), divisor);
      VU code = CodeOf(v);
      hn::StoreU(hn::DemoteTo(DU8Bytes(), hn::BitCast(DI(), code)), DU8Bytes(), codes + at);
      VF miss = hn::Sub(v, ValueOf(code));
      energy[i] = hn::Add(energy[i], hn::Mul(v, v));
      error[i] = hn::Add(error[i], hn::Mul(miss, miss));
    }
  }
  double unit = double{scale} * scale;
  measured->energy += unit * Total(energy);
  measured->error += unit * Total(error);
}

template <DType kType>
int EncodeRows(uint32_t dim, uint32_t first_token, const HeadRows& rows, uint16_t* scales, uint8_t* codes,
               Fp8Error* measured) {
  alignas(64) float x[kMaxCodecDim];
  const auto* row = static_cast<const uint8_t*>(rows.data);
  const ptrdiff_t stride = rows.token_stride * static_cast<ptrdiff_t>(SizeOf(kType));
  for (uint32_t t = 0; t < kPlaneTokens; ++t, codes += dim) {
    uint16_t scale = 0;
    if (t >= first_token) {
      uint32_t most = LoadRow<kType>(row + static_cast<ptrdiff_t>(t) * stride, dim, x);
      if (most > 0x7F7FFFFFu) return static_cast<int>(t);
      scale = Fp8ScaleOf(std::bit_cast<float>(most));
    }
    scales[t] = scale;
    if (scale != 0) {
      CodeRow(x, dim, FromBf16(scale), codes, measured);
      continue;
    }
    std::memset(codes, 0, dim);
    if (t < first_token) continue;
    for (uint32_t c = 0; c < dim; ++c) {
      measured->energy += double{x[c]} * x[c];
      measured->error += double{x[c]} * x[c];
    }
  }
  return -1;
}

int Encode(uint32_t dim, uint32_t first_token, const HeadRows& rows, uint16_t* scales, uint8_t* codes,
           Fp8Error* measured) {
  switch (rows.dtype) {
    case DType::kBf16:
      return EncodeRows<DType::kBf16>(dim, first_token, rows, scales, codes, measured);
    case DType::kF16:
      return EncodeRows<DType::kF16>(dim, first_token, rows, scales, codes, measured);
    default:
      return EncodeRows<DType::kF32>(dim, first_token, rows, scales, codes, measured);
  }
}

template <DType kType>
void DecodeRows(uint32_t dim, uint32_t first_token, const uint16_t* scales, const uint8_t* codes,
                const MutableHeadRows& rows) {
  auto* row = static_cast<uint8_t*>(rows.data);
  const ptrdiff_t stride = rows.token_stride * static_cast<ptrdiff_t>(SizeOf(kType));
  for (uint32_t t = first_token; t < kPlaneTokens; ++t) {
    const VF scale = hn::Set(DF(), FromBf16(scales[t]));
    for (uint32_t c = 0; c < dim; c += kLanes) {
      VU code = hn::PromoteTo(DU(), hn::LoadU(DU8Bytes(), codes + size_t{t} * dim + c));
      StoreFloats<kType>(hn::Mul(scale, ValueOf(code)), row + static_cast<ptrdiff_t>(t) * stride, c);
    }
  }
}

void Decode(uint32_t dim, uint32_t first_token, const uint16_t* scales, const uint8_t* codes,
            const MutableHeadRows& rows) {
  switch (rows.dtype) {
    case DType::kBf16:
      return DecodeRows<DType::kBf16>(dim, first_token, scales, codes, rows);
    case DType::kF16:
      return DecodeRows<DType::kF16>(dim, first_token, scales, codes, rows);
    default:
      return DecodeRows<DType::kF32>(dim, first_token, scales, codes, rows);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace quire
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quire {

HWY_EXPORT(Encode);
HWY_EXPORT(Decode);

int EncodeFp8Head(uint32_t dim, uint32_t first_token, const HeadRows& rows, uint16_t* scales, uint8_t* codes,
                  Fp8Error* measured) {
  *measured = {};
  return HWY_DYNAMIC_DISPATCH(Encode)(dim, first_token, rows, scales, codes, measured);
}

void DecodeFp8Head(uint32_t dim, uint32_t first_token, const uint16_t* scales, const uint8_t* codes,
                   const MutableHeadRows& rows) {
  HWY_DYNAMIC_DISPATCH(Decode)(dim, first_token, scales, codes, rows);
}

}  // namespace quire
#endif  // HWY_ONCE

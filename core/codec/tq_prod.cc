#include "core/codec/tq_prod.h"

#include <bit>
#include <cmath>
#include <numbers>

#include "core/base/float16.h"
#include "core/codec/counter_words.h"
#include "core/codec/head_pass.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/codec/tq_prod.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "core/codec/simd/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quire {
namespace HWY_NAMESPACE {
namespace {

constexpr uint32_t kRowsAtOnce = 8;

// negative[j][t] = (Σ_c S[j][c]·r[c][t] < 0).
void ProjectSigns(uint32_t dim, const float* HWY_RESTRICT s, const float* HWY_RESTRICT r,
                  uint8_t* HWY_RESTRICT negative) {
  const DF df;
  const DU du;
  const hn::Rebind<uint8_t, DU> bytes;
  for (uint32_t j = 0; j < dim; j += kRowsAtOnce) {
    for (uint32_t t = 0; t < kPlaneTokens; t += kLanes) {
      VF sums[kRowsAtOnce];
#pragma GCC unroll 8
      for (uint32_t k = 0; k < kRowsAtOnce; ++k) sums[k] = hn::Zero(df);
      for (uint32_t c = 0; c < dim; ++c) {
        VF x = hn::LoadU(df, r + size_t{c} * kPlaneTokens + t);
#pragma GCC unroll 8
        for (uint32_t k = 0; k < kRowsAtOnce; ++k)
          sums[k] = hn::Add(sums[k], hn::Mul(hn::Set(df, s[size_t{j + k} * dim + c]), x));
      }
#pragma GCC unroll 8
      for (uint32_t k = 0; k < kRowsAtOnce; ++k) {
        VU below = hn::IfThenElseZero(hn::RebindMask(du, hn::Lt(sums[k], hn::Zero(df))), hn::Set(du, 1u));
        hn::StoreU(hn::DemoteTo(bytes, hn::BitCast(DI(), below)), bytes,
                   negative + size_t{j + k} * kPlaneTokens + t);
      }
    }
  }
}

// sums[c][t] = Σ_j ±S[j][c], minus where negative[j][t].
void ProjectBack(uint32_t dim, const float* HWY_RESTRICT s, const uint8_t* HWY_RESTRICT negative,
                 float* HWY_RESTRICT out) {
  const DF df;
  const DU du;
  const hn::Rebind<uint8_t, DU> bytes;
  for (uint32_t c = 0; c < dim; c += kRowsAtOnce) {
    for (uint32_t t = 0; t < kPlaneTokens; t += kLanes) {
      VF sums[kRowsAtOnce];
#pragma GCC unroll 8
      for (uint32_t k = 0; k < kRowsAtOnce; ++k) sums[k] = hn::Zero(df);
      for (uint32_t j = 0; j < dim; ++j) {
        VU flip =
            hn::ShiftLeft<31>(hn::PromoteTo(du, hn::LoadU(bytes, negative + size_t{j} * kPlaneTokens + t)));
#pragma GCC unroll 8
        for (uint32_t k = 0; k < kRowsAtOnce; ++k) {
          VU entry = hn::BitCast(du, hn::Set(df, s[size_t{j} * dim + c + k]));
          sums[k] = hn::Add(sums[k], hn::BitCast(df, hn::Xor(entry, flip)));
        }
      }
#pragma GCC unroll 8
      for (uint32_t k = 0; k < kRowsAtOnce; ++k)
        hn::StoreU(sums[k], df, out + size_t{c + k} * kPlaneTokens + t);
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace quire
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quire {

HWY_EXPORT(ProjectSigns);
HWY_EXPORT(ProjectBack);

namespace {

constexpr size_t kN = kTqTokens;

// What one head is worked on with; each thread keeps its own.
struct ProdWorkspace {
  std::vector<float> y = std::vector<float>(kMaxCodecDim * kN);  // rotated vectors, then what is left of them
  std::vector<float> sums = std::vector<float>(kMaxCodecDim * kN);
  std::vector<uint8_t> codes = std::vector<uint8_t>(kMaxCodecDim * kN);
  std::vector<uint8_t> negative = std::vector<uint8_t>(kMaxCodecDim * kN);

  static ProdWorkspace& OfThread() {
    thread_local ProdWorkspace workspace;
    return workspace;
  }
};

// Rows to [d][64]; tokens before `first` are zero.
void LoadChannels(const HeadRows& rows, uint32_t dim, uint32_t first, float* y) {
  for (uint32_t t = 0; t < kN; ++t) {
    ptrdiff_t at = static_cast<ptrdiff_t>(t) * rows.token_stride;
    const auto* row =
        static_cast<const uint8_t*>(rows.data) + at * static_cast<ptrdiff_t>(SizeOf(rows.dtype));
    for (uint32_t c = 0; c < dim; ++c) y[c * kN + t] = t < first ? 0.0f : LoadElement(rows.dtype, row, c);
  }
}

void StoreChannels(const float* y, uint32_t dim, uint32_t first, const MutableHeadRows& rows) {
  for (uint32_t t = first; t < kN; ++t) {
    ptrdiff_t at = static_cast<ptrdiff_t>(t) * rows.token_stride;
    auto* row = static_cast<uint8_t*>(rows.data) + at * static_cast<ptrdiff_t>(SizeOf(rows.dtype));
    for (uint32_t c = 0; c < dim; ++c) StoreElement(rows.dtype, row, c, y[c * kN + t]);
  }
}

void SquaredNorms(uint32_t dim, const float* y, float* squares) {
  std::fill_n(squares, kN, 0.0f);
  for (uint32_t c = 0; c < dim; ++c) {
    for (size_t t = 0; t < kN; ++t) squares[t] += y[c * kN + t] * y[c * kN + t];
  }
}

// Scales of all tokens and what makes their directions; −1, or the first token that has no finite norm.
int MakeScales(uint32_t dim, uint32_t first, const float* squares, float* inverse, TqProdHead* out) {
  float root = std::sqrt(static_cast<float>(dim));
  for (uint32_t t = 0; t < kN; ++t) {
    if (t >= first && !(squares[t] <= kLargestFloat)) return static_cast<int>(t);
    bool zero = t < first || squares[t] < kTinyEnergy;
    float norm = std::sqrt(squares[t]);
    out->scales[t] = zero ? uint16_t{0} : ToBf16(norm / root);
    inverse[t] = zero ? 0.0f : root / norm;
    out->energy += double{squares[t]};
  }
  return -1;
}

}  // namespace

Projection::Projection(uint32_t dim, uint64_t seed)
    : dim_(dim),
      kappa_(static_cast<float>(std::sqrt(std::numbers::pi / 2) / dim)),
      entries_(size_t{dim} * dim) {
  CounterWords words(seed + 2 * kGoldenGamma);
  auto uniform = [&](uint64_t i) { return static_cast<double>((words.at(i) >> 11) + 1) * 0x1p-53; };
  for (size_t i = 0; i < entries_.size(); i += 2) {
    double radius = std::sqrt(-2 * std::log(uniform(i))), angle = 2 * std::numbers::pi * uniform(i + 1);
    entries_[i] = static_cast<float>(radius * std::cos(angle));
    entries_[i + 1] = static_cast<float>(radius * std::sin(angle));
  }
}

void Projection::Signs(const float* r, uint8_t* negative) const {
  HWY_DYNAMIC_DISPATCH(ProjectSigns)(dim_, entries_.data(), r, negative);
}

void Projection::Back(const uint8_t* negative, float* sums) const {
  HWY_DYNAMIC_DISPATCH(ProjectBack)(dim_, entries_.data(), negative, sums);
}

int EncodeTqProdHead(const Rotation& rotation, const Projection& projection, int bits, FragmentOrder order,
                     uint32_t first_token, const HeadRows& rows, TqProdHead* out,
                     const PlanePointers& planes) {
  const uint32_t dim = rotation.dim();
  const Codebook& book = Codebook::Get(dim, bits - 1);
  ProdWorkspace& work = ProdWorkspace::OfThread();
  float squares[kN], inverse[kN], scales[kN];
  float* y = work.y.data();
  out->energy = out->error = 0;
  LoadChannels(rows, dim, first_token, y);
  rotation.ApplyBlock(y);
  SquaredNorms(dim, y, squares);
  if (int bad = MakeScales(dim, first_token, squares, inverse, out); bad >= 0) return bad;
  TqIndex(book, y, inverse, work.codes.data());
  for (size_t t = 0; t < kN; ++t) scales[t] = FromBf16(out->scales[t]);
  for (uint32_t c = 0; c < dim; ++c) {
    for (size_t t = 0; t < kN; ++t) y[c * kN + t] -= scales[t] * book.table(bits - 1)[work.codes[c * kN + t]];
  }
  SquaredNorms(dim, y, squares);
  for (size_t t = 0; t < kN; ++t)
    out->rests[t] = out->scales[t] == 0 ? uint16_t{0} : ToBf16(std::sqrt(squares[t]));
  projection.Signs(y, work.negative.data());
  projection.Back(work.negative.data(), work.sums.data());
  for (uint32_t c = 0; c < dim; ++c) {
    for (size_t t = 0; t < kN; ++t) {
      size_t at = c * kN + t;
      float miss = y[at] - FromBf16(out->rests[t]) * projection.kappa() * work.sums[at];
      out->error += double{miss} * miss;
      work.codes[at] =
          out->scales[t] == 0 ? uint8_t{0} : static_cast<uint8_t>(2 * work.codes[at] + work.negative[at]);
    }
  }
  PackPlanes(order, dim, bits, work.codes.data(), planes.data());
  return -1;
}

void DecodeTqProdHead(const Rotation& rotation, const Projection& projection, int bits, FragmentOrder order,
                      uint32_t first_token, const TqProdHead& in, const ConstPlanePointers& planes,
                      const MutableHeadRows& rows) {
  const uint32_t dim = rotation.dim();
  const float* table = Codebook::Get(dim, bits - 1).table(bits - 1);
  ProdWorkspace& work = ProdWorkspace::OfThread();
  float scales[kN], rests[kN];
  for (size_t t = 0; t < kN; ++t) {
    scales[t] = FromBf16(in.scales[t]);
    rests[t] = FromBf16(in.rests[t]) * projection.kappa();
  }
  UnpackPlanes(order, dim, bits, planes.data(), work.codes.data());
  for (size_t i = 0; i < dim * kN; ++i) work.negative[i] = work.codes[i] & 1;
  projection.Back(work.negative.data(), work.sums.data());
  float* y = work.y.data();
  for (uint32_t c = 0; c < dim; ++c) {
    for (size_t t = 0; t < kN; ++t) {
      size_t at = c * kN + t;
      y[at] = scales[t] * table[work.codes[at] >> 1] + rests[t] * work.sums[at];
    }
  }
  rotation.ApplyTransposedBlock(y);
  StoreChannels(y, dim, first_token, rows);
}

}  // namespace quire
#endif  // HWY_ONCE

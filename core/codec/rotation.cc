#include "core/codec/rotation.h"

#include <bit>
#include <cmath>
#include <numbers>

#include "core/codec/counter_words.h"
#include "core/codec/tiles.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/codec/rotation.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "core/codec/simd/rotate-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quire {
namespace HWY_NAMESPACE {

void ScaleRows(uint32_t dim, size_t row, const float* HWY_RESTRICT factors, float* x) {
  const DF d;
  for (uint32_t c = 0; c < dim; ++c) {
    for (size_t l = 0; l < kTileTokens; l += kLanes) {
      float* at = x + c * row + l;
      hn::StoreU(hn::Mul(hn::LoadU(d, at), hn::Set(d, factors[c])), d, at);
    }
  }
}

void RotateBlock(const RotationTables& r, const float* signs, bool transposed, const Tiles& x) {
  for (uint32_t g = 0; g < kTiles; ++g) {
    float* tile = x.at(g);
    if (!transposed) ScaleRows(r.dim, x.row, signs, tile);
    MixTile(r, x.row, nullptr, tile);
    MixTile(r, x.row, r.middle, tile);
    if (transposed) ScaleRows(r.dim, x.row, signs, tile);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace quire
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quire {

HWY_EXPORT(RotateBlock);

namespace {

// Butterflies of distance 1, 2, 4, … of one vector.
void Hadamard(uint32_t rows, float* x) {
  for (uint32_t h = 1; h < rows; h *= 2) {
    for (uint32_t base = 0; base < rows; base += 2 * h) {
      float* __restrict a = x + base, * __restrict b = a + h;
      for (uint32_t i = 0; i < h; ++i) {
        float sum = a[i] + b[i], difference = a[i] - b[i];
        a[i] = sum;
        b[i] = difference;
      }
    }
  }
}

// D₁ as factors ±1.
void Signs(const std::vector<uint32_t>& flips, float* signs) {
  for (size_t i = 0; i < flips.size(); ++i) signs[i] = flips[i] != 0 ? -1.0f : 1.0f;
}

}  // namespace

// The two factors 1/sqrt(p) are one 1/p, a power of two: exact.
Rotation::Rotation(uint32_t dim, uint64_t seed)
    : dim_(dim), power_(1u << std::countr_zero(dim)), odd_(dim / power_), hartley_(size_t{odd_} * odd_) {
  CounterWords words(seed + kGoldenGamma);
  auto negative = [&](uint64_t round, uint32_t i) {
    return (words.at(16 * round + i / 64) >> (i % 64) & 1) != 0;
  };
  for (uint32_t i = 0; i < dim; ++i) {
    flips_.push_back(negative(0, i) ? 0x80000000u : 0);
    middle_.push_back((negative(1, i) ? -1.0f : 1.0f) / static_cast<float>(power_));
  }
  for (uint32_t j = 0; j < odd_; ++j) {
    for (uint32_t k = 0; k < odd_; ++k) {
      double angle = 2 * std::numbers::pi * (j * k % odd_) / odd_;
      hartley_[j * odd_ + k] =
          static_cast<float>((std::cos(angle) + std::sin(angle)) / std::sqrt(double{odd_ * 1.0}));
    }
  }
}

void Rotation::Mix(float* x) const {
  for (uint32_t a = 0; a < odd_; ++a) Hadamard(power_, x + a * power_);
  if (odd_ == 1) return;
  for (uint32_t i = 0; i < power_; ++i) {
    float out[kMaxCodecDim / kCodecDimStep];
    for (uint32_t a = 0; a < odd_; ++a) {
      float sum = 0;
      for (uint32_t k = 0; k < odd_; ++k) sum += hartley_[a * odd_ + k] * x[k * power_ + i];
      out[a] = sum;
    }
    for (uint32_t a = 0; a < odd_; ++a) x[a * power_ + i] = out[a];
  }
}

void Rotation::Apply(float* x) const {
  float signs[kMaxCodecDim];
  Signs(flips_, signs);
  for (uint32_t i = 0; i < dim_; ++i) x[i] *= signs[i];
  Mix(x);
  for (uint32_t i = 0; i < dim_; ++i) x[i] *= middle_[i];
  Mix(x);
}

void Rotation::ApplyTransposed(float* y) const {
  float signs[kMaxCodecDim];
  Signs(flips_, signs);
  Mix(y);
  for (uint32_t i = 0; i < dim_; ++i) y[i] *= middle_[i];
  Mix(y);
  for (uint32_t i = 0; i < dim_; ++i) y[i] *= signs[i];
}

void Rotation::ApplyBlock(float* x) const {
  float signs[kMaxCodecDim];
  Signs(flips_, signs);
  HWY_DYNAMIC_DISPATCH(RotateBlock)(tables(), signs, false, Tiles{x, kPlaneTokens, kTileTokens});
}

void Rotation::ApplyTransposedBlock(float* y) const {
  float signs[kMaxCodecDim];
  Signs(flips_, signs);
  HWY_DYNAMIC_DISPATCH(RotateBlock)(tables(), signs, true, Tiles{y, kPlaneTokens, kTileTokens});
}

}  // namespace quire
#endif  // HWY_ONCE

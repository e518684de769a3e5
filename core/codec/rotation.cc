#include "core/codec/rotation.h"

#include <bit>
#include <cmath>
#include <numbers>

#include "core/codec/codebook.h"

namespace quire {
namespace {

constexpr uint64_t kGolden = 0x9E3779B97F4A7C15u;

uint64_t Mix64(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// Butterflies of distance 1, 2, 4, … over `rows` rows of kLanes floats. Two distances go in one pass over
// memory.
template <size_t kLanes>
void Hadamard(uint32_t rows, float* x) {
  uint32_t h = 1;
  for (; 4 * h <= rows; h *= 4) {
    for (uint32_t base = 0; base < rows; base += 4 * h) {
      for (uint32_t i = base; i < base + h; ++i) {
        float* __restrict a = x + i * kLanes, * __restrict b = a + h * kLanes, * __restrict c = b + h * kLanes, * __restrict d = c + h * kLanes;
        for (size_t l = 0; l < kLanes; ++l) {
          float sum_ab = a[l] + b[l], diff_ab = a[l] - b[l], sum_cd = c[l] + d[l], diff_cd = c[l] - d[l];
          a[l] = sum_ab + sum_cd;
          b[l] = diff_ab + diff_cd;
          c[l] = sum_ab - sum_cd;
          d[l] = diff_ab - diff_cd;
        }
      }
    }
  }
  if (h == rows) return;
  for (uint32_t i = 0; i < h; ++i) {
    float* __restrict a = x + i * kLanes, * __restrict b = a + h * kLanes;
    for (size_t l = 0; l < kLanes; ++l) {
      float sum = a[l] + b[l], diff = a[l] - b[l];
      a[l] = sum;
      b[l] = diff;
    }
  }
}

// x[a][·] = Σ_k matrix[a][k] x[k][·] over `odd` rows that lie `stride` floats apart, kLanes columns at a
// time.
template <size_t kLanes>
void MixRows(uint32_t odd, const float* matrix, size_t stride, float* x) {
  float out[kMaxCodecDim / kCodecDimStep][kLanes];
  for (uint32_t a = 0; a < odd; ++a) {
    float* __restrict sum = out[a];
    for (size_t l = 0; l < kLanes; ++l) sum[l] = 0;
    for (uint32_t k = 0; k < odd; ++k) {
      const float* __restrict row = x + k * stride;
      float weight = matrix[a * odd + k];
      for (size_t l = 0; l < kLanes; ++l) sum[l] += weight * row[l];
    }
  }
  for (uint32_t a = 0; a < odd; ++a) {
    for (size_t l = 0; l < kLanes; ++l) x[a * stride + l] = out[a][l];
  }
}

}  // namespace

Rotation::Rotation(uint32_t dim, uint64_t seed)
    : dim_(dim), power_(1u << std::countr_zero(dim)), odd_(dim / power_), hartley_(size_t{odd_} * odd_) {
  uint64_t base = Mix64(seed + kGolden);
  for (uint64_t round = 0; round < 2; ++round) {
    signs_[round].resize(dim);
    for (uint32_t i = 0; i < dim; ++i) {
      uint64_t word = Mix64(base + (16 * round + i / 64 + 1) * kGolden);
      signs_[round][i] = word >> (i % 64) & 1;
    }
  }
  for (uint32_t j = 0; j < odd_; ++j) {
    for (uint32_t k = 0; k < odd_; ++k) {
      double angle = 2 * std::numbers::pi * (j * k % odd_) / odd_;
      hartley_[j * odd_ + k] =
          static_cast<float>((std::cos(angle) + std::sin(angle)) / std::sqrt(double{odd_ * 1.0}));
    }
  }
}

template <size_t kLanes>
void Rotation::Mix(float* x) const {
  for (uint32_t a = 0; a < odd_; ++a) Hadamard<kLanes>(power_, x + a * power_ * kLanes);
  if (odd_ == 1) return;
  constexpr size_t kWidth = 16;  // columns a pass of MixRows; power_ is a multiple of 16
  size_t row = power_ * kLanes;
  for (size_t column = 0; column < row; column += kWidth)
    MixRows<kWidth>(odd_, hartley_.data(), row, x + column);
}

template <size_t kLanes>
void Rotation::Flip(const std::vector<uint8_t>& signs, float factor, float* x) const {
  for (uint32_t i = 0; i < dim_; ++i) {
    float sign = signs[i] ? -factor : factor;
    for (size_t l = 0; l < kLanes; ++l) x[i * kLanes + l] *= sign;
  }
}

// The two factors 1/sqrt(p) are one 1/p, a power of two: exact.
void Rotation::Apply(float* x) const {
  Flip<1>(signs_[0], 1.0f, x);
  Mix<1>(x);
  Flip<1>(signs_[1], 1.0f / power_, x);
  Mix<1>(x);
}

void Rotation::ApplyTransposed(float* y) const {
  Mix<1>(y);
  Flip<1>(signs_[1], 1.0f / power_, y);
  Mix<1>(y);
  Flip<1>(signs_[0], 1.0f, y);
}

void Rotation::ApplyBlock(float* x) const {
  Flip<64>(signs_[0], 1.0f, x);
  Mix<64>(x);
  Flip<64>(signs_[1], 1.0f / power_, x);
  Mix<64>(x);
}

void Rotation::ApplyTransposedBlock(float* y) const {
  Mix<64>(y);
  Flip<64>(signs_[1], 1.0f / power_, y);
  Mix<64>(y);
  Flip<64>(signs_[0], 1.0f, y);
}

}  // namespace quire

// The fixed orthogonal matrix R that makes a vector's coordinates look alike before they are quantised
// (rotation id 1).
//
//   R = M D₂ M D₁,   M = A ⊗ H / sqrt(p),   d = q·p, p the largest power of two in d, q odd
//
//   H     the p×p Walsh–Hadamard matrix in natural order, H[a][b] = (−1)^popcount(a & b)
//   A     the q×q discrete Hartley matrix, A[j][k] = (cos(2πjk/q) + sin(2πjk/q)) / sqrt(q), made in double
//         and rounded to float; (1) for q = 1
//   D₁,₂  diagonal signs from a counter: channel i of round r (0 for D₁, 1 for D₂) is negated where bit
//         i % 64 of word(r, i / 64) is set,
//           word(r, w) = mix(mix(seed + G) + (16 r + w + 1) G),   G = 0x9E3779B97F4A7C15,
//         mix is SplitMix64's: z = (z ^ z>>30) · 0xBF58476D1CE4E5B9,
//           z = (z ^ z>>27) · 0x94D049BB133111EB, z ^ z>>31
//
// A ⊗ H: channel a·p + b stands at row a of A's side and b of H's. M is symmetric, so Rᵀ = D₁ M D₂ M. Sums
// are made in a fixed order (butterflies of distance 1, 2, 4, …, then A's sums by ascending k, in float), the
// same for every entry point.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace quire {

// The matrix as the kernels take it.
struct RotationTables {
  uint32_t dim, power, odd;
  const uint32_t* flips;  // [dim] D₁ as sign bits: 0 or 0x80000000
  const float* middle;    // [dim] D₂/p: ±1/p
  const float* hartley;   // [odd][odd]
};

// Immutable, thread-safe.
class Rotation {
 public:
  // REQUIRES: IsCodecDim(dim) (core/codec/codebook.h).
  Rotation(uint32_t dim, uint64_t seed);

  uint32_t dim() const { return dim_; }
  RotationTables tables() const {
    return {dim_, power_, odd_, flips_.data(), middle_.data(), hartley_.data()};
  }

  // y = R·x and x = Rᵀ·y for one vector of dim floats, in place.
  void Apply(float* x) const;
  void ApplyTransposed(float* y) const;
  // The same for 64 vectors, channel-major: element c of vector t is x[c·64 + t].
  void ApplyBlock(float* x) const;
  void ApplyTransposedBlock(float* y) const;

 private:
  void Mix(float* x) const;  // M·sqrt(p), unnormalised Hadamard, of one vector

  uint32_t dim_, power_, odd_;
  std::vector<uint32_t> flips_;
  std::vector<float> middle_, hartley_;
};

}  // namespace quire

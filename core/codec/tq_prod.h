// The codec `tq_prod`: codes whose inner products are unbiased. For vector search; as keys of attention its
// spread costs far more than the bias it removes.
//
// Per vector, with y = R·x (core/codec/rotation.h), no mean, and b bits a coordinate of which b−1 are an
// index:
//   scale  = bf16 of ‖y‖/sqrt(d), the exact norm
//   index  = cells of y·sqrt(d)/‖y‖ in the codebook of b−1 bits; c their centroids
//   r      = y − scale·c; rest = bf16 of ‖r‖
//   sign_j = whether (S·r)_j < 0, S a d × d matrix of independent standard normals, the same for all vectors
//   ŷ      = scale·c + rest·κ·Sᵀσ,  σ_j = −1 where sign_j, else 1,  κ = sqrt(π/2)/d rounded to float
//   x̂      = Rᵀ·ŷ
//
// Over the choice of S, E[sqrt(π/2)/d · ‖r‖ · Sᵀ sign(S·r)] = r, so E⟨q, x̂⟩ = ⟨q, x⟩ for every q (to bf16 of
// ‖r‖), with variance ((π/2)·‖q‖²‖r‖² − ⟨q, r⟩²)/d.
//
// S is a format constant of (d, seed), made from a counter, with mix and G of rotation.h: word(i) =
// mix(mix(seed + 2G) + (i + 1)·G), u(i) = (⌊word(i)/2¹¹⌋ + 1)·2⁻⁵³; entries 2i and 2i + 1 (row by row:
// S[j][c] is entry j·d + c) are, in double,
//   sqrt(−2 ln u(2i)) · cos(2π u(2i+1))   and   sqrt(−2 ln u(2i)) · sin(2π u(2i+1)),   rounded to float.
// libm's last-bit differences vanish in that rounding, as the codebooks' do.
//
// Sums run in ascending order of channels (S·r, norms) and of rows (Sᵀσ), in float, one product and one
// addition at a time.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/codec/codebook.h"
#include "core/codec/head_codec.h"
#include "core/codec/planes.h"
#include "core/codec/rotation.h"
#include "core/codec/tq.h"

namespace quire {

inline constexpr int kMinProdBits = 2;

// S of one (dim, seed). Immutable, thread-safe; 4·d² bytes.
class Projection {
 public:
  // REQUIRES: IsCodecDim(dim).
  Projection(uint32_t dim, uint64_t seed);

  uint32_t dim() const { return dim_; }
  const float* row(uint32_t j) const { return entries_.data() + size_t{j} * dim_; }
  float kappa() const { return kappa_; }  // sqrt(π/2)/d

  // negative[j][t] = 1 where (S·r_t)_j < 0, else 0; r [d][64], negative [d][64].
  void Signs(const float* r, uint8_t* negative) const;
  // sums[c][t] = (Sᵀσ_t)_c; [d][64] both.
  void Back(const uint8_t* negative, float* sums) const;

 private:
  uint32_t dim_;
  float kappa_;
  std::vector<float> entries_;
};

// One stream of one head. Codes of b bits are (index of b−1 bits) · 2 + sign; code j's last bit belongs to
// row j of S. Planes are tq's of these codes (core/codec/planes.h), all b − 1 of them.
struct TqProdHead {
  std::array<uint16_t, kTqTokens> scales{}, rests{};  // bf16, tokens in natural order
  double energy = 0, error = 0;  // Σ‖x‖², Σ‖x − x̂‖² over the coded tokens
};

// Encodes; rows of tokens before `first_token` are not read, their scales, rests and codes are zero. A vector
// with ‖y‖² < 2^-100 counts as zero. Returns −1, or the first token whose squared norm is not a finite float;
// `out` and planes are then unspecified. A thread's first call allocates. REQUIRES: dims agree, kMinProdBits
// <= bits <= kMaxCodeBits.
int EncodeTqProdHead(const Rotation& rotation, const Projection& projection, int bits, FragmentOrder order,
                     uint32_t first_token, const HeadRows& rows, TqProdHead* out,
                     const PlanePointers& planes);

// Rows of tokens before `first_token` are left as they were. Uses scales and rests of `in`.
void DecodeTqProdHead(const Rotation& rotation, const Projection& projection, int bits, FragmentOrder order,
                      uint32_t first_token, const TqProdHead& in, const ConstPlanePointers& planes,
                      const MutableHeadRows& rows);

}  // namespace quire

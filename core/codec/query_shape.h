// What a head's queries look like, so that its keys' rounding errors can be steered past them.
//
// A key's error e costs attention q·e, so what counts is E[(q·e)²] = eᵀMe with M = E[qqᵀ], not ‖e‖². Queries
// lie in few directions, and scalar quantisation with error feedback has the choice: channels are rounded one
// after another, and what a channel misses is made up for in those that are not rounded yet,
//
//   e_i = z_i − c_i,   z_j −= e_i · U_ij / U_ii   for j > i,   UᵀU = C⁻¹, U upper,   C = R·M·Rᵀ + ridge
//
// (GPTQ, Frantar et al. 2022, arXiv 2210.17323, with a head's queries in the place of a layer's inputs). The
// bytes are as any `tq` encoder's: nothing is stored of M, and a decoder need not know. The ridge keeps the
// error's other directions from growing without bound.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "core/codec/rotation.h"

namespace quire {

// Immutable, thread-safe.
class QueryShape {
 public:
  // Of the mean energy of a channel. A smaller one steers more and makes the keys' own errors larger.
  static constexpr double kRidge = 0.3;

  // `moments` is E[qqᵀ], [d][d] row-major, at any scale, of queries as attention multiplies them with keys
  // (after RoPE). INVALID_ARGUMENT if it has another size, is not finite, or is not a matrix of second
  // moments (symmetric to 1e-6 of its trace, nothing negative).
  static absl::StatusOr<QueryShape> Create(const Rotation& rotation, std::span<const double> moments,
                                           double ridge = kRidge);

  // [d][d]: U_ij / U_ii for j > i; the rest is not read.
  const float* feedback() const { return feedback_.data(); }
  uint32_t dim() const { return dim_; }

 private:
  QueryShape(uint32_t dim, std::vector<float> feedback) : dim_(dim), feedback_(std::move(feedback)) {}

  uint32_t dim_;
  std::vector<float> feedback_;
};

}  // namespace quire

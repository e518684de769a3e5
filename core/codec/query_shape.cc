#include "core/codec/query_shape.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace quire {
namespace {

// [d][d], row-major, of doubles.
class Square {
 public:
  Square(size_t d, std::span<const double> values) : d_(d), values_(values.begin(), values.end()) {}
  double& at(size_t i, size_t j) { return values_[i * d_ + j]; }
  double at(size_t i, size_t j) const { return values_[i * d_ + j]; }
  size_t dim() const { return d_; }

  double Trace() const {
    double sum = 0;
    for (size_t i = 0; i < d_; ++i) sum += at(i, i);
    return sum;
  }
  // R·M·Rᵀ: the rows are turned, and, the matrix being symmetric, so are the columns.
  void Turn(const Rotation& rotation) {
    std::vector<float> row(d_);
    for (int side = 0; side < 2; ++side) {
      for (size_t i = 0; i < d_; ++i) {
        std::copy_n(&at(i, 0), d_, row.begin());
        rotation.Apply(row.data());
        std::copy_n(row.begin(), d_, &at(i, 0));
      }
      for (size_t i = 0; i < d_; ++i) {
        for (size_t j = 0; j < i; ++j) std::swap(at(i, j), at(j, i));
      }
    }
  }
  // The upper V with V·Vᵀ = this, in place; false where this is not positive definite.
  bool FactoriseUpper() {
    for (size_t j = d_; j-- > 0;) {
      for (size_t i = j + 1; i-- > 0;) {
        double sum = at(i, j);
        for (size_t k = j + 1; k < d_; ++k) sum -= at(i, k) * at(j, k);
        if (i == j) {
          if (!(sum > 0)) return false;
          at(j, j) = std::sqrt(sum);
        } else {
          at(i, j) = sum / at(j, j);
        }
      }
    }
    return true;
  }
  // Of an upper matrix, in place.
  void InvertUpper() {
    for (size_t j = 0; j < d_; ++j) {
      // Columns before j are the inverse's, and so are the rows above i of column j itself.
      for (size_t i = 0; i < j; ++i) {
        double sum = 0;
        for (size_t k = i; k < j; ++k) sum += at(i, k) * at(k, j);
        at(i, j) = -sum / at(j, j);
      }
      at(j, j) = 1 / at(j, j);
    }
  }

 private:
  size_t d_;
  std::vector<double> values_;
};

absl::Status CheckMoments(const Square& moments) {
  const double trace = moments.Trace();
  for (size_t i = 0; i < moments.dim(); ++i) {
    for (size_t j = 0; j <= i; ++j) {
      const double a = moments.at(i, j), b = moments.at(j, i);
      if (!std::isfinite(a) || !(std::fabs(a - b) <= 1e-6 * trace) || (i == j && a < 0)) {
        return absl::InvalidArgumentError(absl::StrCat("query moments: element (", i, ", ", j, ") is ", a,
                                                       " and (", j, ", ", i, ") ", b,
                                                       ": not second moments"));
      }
    }
  }
  if (!(trace > 0)) return absl::InvalidArgumentError("query moments: all are zero");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<QueryShape> QueryShape::Create(const Rotation& rotation, std::span<const double> moments,
                                              double ridge) {
  const size_t d = rotation.dim();
  if (moments.size() != d * d) {
    return absl::InvalidArgumentError(absl::StrCat("query moments: ", moments.size(),
                                                   " elements for heads of ", d, ": ", d * d, " are needed"));
  }
  Square c(d, moments);
  if (absl::Status status = CheckMoments(c); !status.ok()) return status;
  c.Turn(rotation);
  const double scale = static_cast<double>(d) / c.Trace();
  for (size_t i = 0; i < d; ++i) {
    for (size_t j = 0; j < d; ++j) c.at(i, j) *= scale;
    c.at(i, i) += ridge;
  }
  // With C = V·Vᵀ, C⁻¹ = V⁻ᵀ·V⁻¹: U is V⁻¹.
  if (!c.FactoriseUpper()) return absl::InvalidArgumentError("query moments: not positive definite");
  c.InvertUpper();
  std::vector<float> feedback(d * d);
  for (size_t i = 0; i < d; ++i) {
    for (size_t j = i + 1; j < d; ++j) feedback[i * d + j] = static_cast<float>(c.at(i, j) / c.at(i, i));
  }
  return QueryShape(rotation.dim(), std::move(feedback));
}

}  // namespace quire

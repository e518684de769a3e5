// The exact Lloyd–Max codebooks of one coordinate of a uniformly random direction in R^d, scaled by sqrt(d):
// the quantiser of `tq`. Density of the unscaled coordinate: f(x) ∝ (1−x²)^((d−3)/2) on [−1, 1].
//
// These are format constants: an object holds indices only, so every machine must derive the same tables.
// They are computed in double precision by a fixed number of steps (a companded start, Lloyd steps, then
// Newton steps on the stationarity conditions, which end at a fixed point to about 1e-15), and rounded to
// float once, at the end. Nothing but IEEE arithmetic and libm's pow, asin and sqrt enters; their last-bit
// differences between platforms vanish in the rounding.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace quire {

inline constexpr uint32_t kMinCodecDim = 16, kMaxCodecDim = 576, kCodecDimStep = 16;
inline constexpr int kMaxCodeBits = 8;

constexpr bool IsCodecDim(uint32_t dim) {
  return dim >= kMinCodecDim && dim <= kMaxCodecDim && dim % kCodecDimStep == 0;
}

// A code of b bits is sign and magnitude: bit b−1 is the sign (1 = negative), the bits below it are the
// magnitude, the number of the cell counted from 0 outwards. code >> (b−l) is the same value's code at l
// bits.
class Codebook {
 public:
  // Built at the first call for (dim, bits) and kept for the life of the process; thread-safe.
  // REQUIRES: IsCodecDim(dim), 1 <= bits <= kMaxCodeBits.
  static const Codebook& Get(uint32_t dim, int bits);

  uint32_t dim() const { return dim_; }
  int bits() const { return bits_; }

  // Positive half, ascending, times sqrt(d): 2^(b−1) centroids and the 2^(b−1) − 1 thresholds between them (0
  // excluded).
  const std::vector<double>& centroids() const { return centroids_; }
  const std::vector<double>& thresholds() const { return thresholds_; }
  const std::vector<float>& float_thresholds() const { return float_thresholds_; }
  // E‖x−x̂‖²/‖x‖² with the exact norm.
  double mse() const { return rungs_[bits_].mse; }

  // What remains when only the first `kept` bits of a code are known (1 <= kept <= bits): cells are merged
  // and decode to their conditional means.
  const std::vector<double>& merged_centroids(int kept) const { return rungs_[kept].centroids; }
  double truncated_mse(int kept) const { return rungs_[kept].mse; }
  // Signed centroids, indexed by a code of `kept` bits.
  const float* table(int kept) const { return rungs_[kept].table.data(); }
  // What an unbiased scale ⟨y,y⟩/⟨y,c⟩ is multiplied with, for the ideal density, when `to` bits are kept
  // instead of `from`.
  float nominal_ratio(int from, int to) const {
    return static_cast<float>((1.0 - rungs_[from].mse) / (1.0 - rungs_[to].mse));
  }

 private:
  struct Rung {
    std::vector<double> centroids;
    std::vector<float> table;
    double mse = 0;
  };
  Codebook(uint32_t dim, int bits);

  uint32_t dim_;
  int bits_;
  std::vector<double> centroids_, thresholds_;
  std::vector<float> float_thresholds_;
  std::array<Rung, kMaxCodeBits + 1> rungs_;  // by kept bits; [0] unused
};

}  // namespace quire

#include "core/codec/codebook.h"

#include <cmath>
#include <memory>
#include <mutex>

namespace quire {
namespace {

constexpr int kLloydSteps = 24, kNewtonSteps = 16, kStartGrid = 4096;

// The density's integrals, with x = sin θ: ∫ (1−x²)^((d−3)/2) dx = ∫ cos^(d−2) θ dθ. d is even, so the
// reduction formula ends at ∫ dθ and all its terms are positive.
class Density {
 public:
  explicit Density(uint32_t dim) : dim_(dim), total_(Area(1.0)) {}

  // Probability of [0, x], x in [0, 1]; 1/2 at x = 1.
  double Mass(double x) const { return Area(x) / (2 * total_); }
  // ∫₀ˣ u f(u) du, closed.
  double Moment(double x) const {
    double n = dim_ - 1;
    return (1.0 - std::pow(1.0 - x * x, n / 2)) / n / (2 * total_);
  }
  double At(double x) const { return std::pow(1.0 - x * x, (dim_ - 3) / 2.0) / (2 * total_); }

 private:
  double Area(double x) const {
    double cosine_squared = 1.0 - x * x, cosine = std::sqrt(cosine_squared);
    double area = std::asin(x), power = cosine;  // power: cos^(n−1)
    for (uint32_t n = 2; n <= dim_ - 2; n += 2) {
      area = (power * x + (n - 1) * area) / n;
      power *= cosine_squared;
    }
    return area;
  }

  uint32_t dim_;
  double total_;
};

// Quantiles of f^(1/3), the asymptotically best density of centroids.
std::vector<double> CompandedStart(uint32_t dim, size_t n) {
  double width = std::fmin(1.0, 8.0 / std::sqrt(dim));
  std::vector<double> cumulative(kStartGrid + 1, 0.0);
  for (int i = 0; i < kStartGrid; ++i) {
    double x = (i + 0.5) / kStartGrid * width;
    cumulative[i + 1] = cumulative[i] + std::pow(1.0 - x * x, (dim - 3) / 6.0);
  }
  std::vector<double> start(n);
  int at = 0;
  for (size_t k = 0; k < n; ++k) {
    double want = (k + 0.5) / n * cumulative[kStartGrid];
    while (cumulative[at + 1] < want) ++at;
    start[k] = (at + (want - cumulative[at]) / (cumulative[at + 1] - cumulative[at])) / kStartGrid * width;
  }
  return start;
}

struct Cells {
  std::vector<double> edges;  // n + 1, from 0 to 1
  std::vector<double> mass, mean;
};

Cells Measure(const Density& density, const std::vector<double>& centroids) {
  size_t n = centroids.size();
  Cells cells{std::vector<double>(n + 1), std::vector<double>(n), std::vector<double>(n)};
  cells.edges[n] = 1.0;
  for (size_t k = 1; k < n; ++k) cells.edges[k] = (centroids[k - 1] + centroids[k]) / 2;
  double mass = 0, moment = 0;
  for (size_t k = 0; k < n; ++k) {
    double next_mass = density.Mass(cells.edges[k + 1]), next_moment = density.Moment(cells.edges[k + 1]);
    cells.mass[k] = next_mass - mass;
    cells.mean[k] = (next_moment - moment) / cells.mass[k];
    mass = next_mass;
    moment = next_moment;
  }
  return cells;
}

// One Newton step on c_k − mean_k(c) = 0; its Jacobian is tridiagonal.
std::vector<double> NewtonStep(const Density& density, const std::vector<double>& c) {
  size_t n = c.size();
  Cells cells = Measure(density, c);
  std::vector<double> upper(n), right(n);
  for (size_t k = 0; k < n; ++k) {
    double low = cells.edges[k], high = cells.edges[k + 1];
    // Half the derivative of the mean by each edge; the outer edges do not move.
    double by_low = k == 0 ? 0 : 0.5 * density.At(low) * (cells.mean[k] - low) / cells.mass[k];
    double by_high = k + 1 == n ? 0 : 0.5 * density.At(high) * (high - cells.mean[k]) / cells.mass[k];
    double pivot = 1 - by_low - by_high + (k == 0 ? 0 : by_low * upper[k - 1]);
    double residual = c[k] - cells.mean[k] + (k == 0 ? 0 : by_low * right[k - 1]);
    upper[k] = -by_high / pivot;
    right[k] = residual / pivot;
  }
  std::vector<double> next(n);
  double delta = 0;
  for (size_t k = n; k-- > 0;) {
    delta = right[k] - upper[k] * delta;
    next[k] = c[k] - delta;
  }
  return next;
}

bool Ordered(const std::vector<double>& c) {
  double last = 0;
  for (double x : c) {
    if (!(x > last && x < 1)) return false;
    last = x;
  }
  return true;
}

}  // namespace

Codebook::Codebook(uint32_t dim, int bits) : dim_(dim), bits_(bits) {
  Density density(dim);
  std::vector<double> c = CompandedStart(dim, size_t{1} << (bits - 1));
  for (int i = 0; i < kLloydSteps; ++i) c = Measure(density, c).mean;
  for (int i = 0; i < kNewtonSteps; ++i) {
    std::vector<double> next = NewtonStep(density, c);
    c = Ordered(next) ? next : Measure(density, c).mean;
  }
  Cells cells = Measure(density, c);
  double scale = std::sqrt(static_cast<double>(dim));
  for (size_t k = 0; k < c.size(); ++k) {
    centroids_.push_back(c[k] * scale);
    if (k > 0) thresholds_.push_back(cells.edges[k] * scale);
  }
  float_thresholds_.assign(thresholds_.begin(), thresholds_.end());
  for (int kept = 1; kept <= bits; ++kept) {
    Rung& rung = rungs_[kept];
    size_t half = size_t{1} << (kept - 1), merged = c.size() / half;
    rung.centroids.resize(half);
    rung.table.resize(2 * half);
    double captured = 0;
    for (size_t k = 0; k < half; ++k) {
      double mass = 0, moment = 0;
      for (size_t i = k * merged; i < (k + 1) * merged; ++i) {
        mass += cells.mass[i];
        moment += cells.mass[i] * centroids_[i];
      }
      rung.centroids[k] = kept == bits ? centroids_[k] : moment / mass;
      captured += 2 * mass * rung.centroids[k] * rung.centroids[k];
      rung.table[k] = static_cast<float>(rung.centroids[k]);
      rung.table[half + k] = -rung.table[k];
    }
    rung.mse = 1 - captured;
  }
}

const Codebook& Codebook::Get(uint32_t dim, int bits) {
  struct Slot {
    std::once_flag once;
    std::unique_ptr<const Codebook> book;
  };
  static auto* slots = new std::array<std::array<Slot, kMaxCodeBits + 1>, kMaxCodecDim / kCodecDimStep + 1>();
  Slot& slot = (*slots)[dim / kCodecDimStep][bits];
  std::call_once(slot.once, [&] { slot.book.reset(new Codebook(dim, bits)); });
  return *slot.book;
}

}  // namespace quire

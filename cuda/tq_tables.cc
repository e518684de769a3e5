#include "cuda/tq_tables.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

#include "core/base/float16.h"
#include "core/codec/rotation.h"
#include "core/codec/tq.h"

namespace quire::cuda {
namespace {

uint64_t Mix64(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

float RatioOf(const Codebook& book, int level) {
  return level == 0 || !HasLevel(book.bits(), level)
             ? 1.0f
             : book.nominal_ratio(KeptBits(book.bits(), level - 1), KeptBits(book.bits(), level));
}

// columns[k][c] = R[c][k]
std::vector<std::vector<float>> RotationColumns(uint32_t dim, uint64_t seed) {
  Rotation rotation(dim, seed);
  std::vector<std::vector<float>> columns(dim, std::vector<float>(dim, 0.0f));
  for (uint32_t k = 0; k < dim; ++k) {
    columns[k][k] = 1;
    rotation.Apply(columns[k].data());
  }
  return columns;
}

size_t ImageIndex(uint32_t dim, uint32_t n, uint32_t k) {
  return (n / 8) * 64 + (k / 8) * 8 * size_t{dim} + (n % 8) * 8 + k % 8;
}

uint32_t ColumnChannel(uint32_t dim, uint32_t column) { return FragmentChannel(dim, column / 8, column % 8); }

// Centroids of `kept` bits, for every magnitude of 3 bits whose first kept − 1 bits count.
NibbleTable MakeNibbleTable(const Codebook& book, int kept) {
  NibbleTable table{};
  for (uint32_t m = 0; m < 8; ++m) {
    uint32_t half = ToF16(static_cast<float>(book.merged_centroids(kept)[m >> (4 - kept)]));
    table.low[m / 4] |= (half & 0xFF) << 8 * (m % 4);
    table.high[m / 4] |= (half >> 8) << 8 * (m % 4);
  }
  return table;
}

uint32_t TwoHalves(double x) {
  uint32_t half = ToF16(static_cast<float>(x));
  return half | half << 16;
}

constexpr int kTerms = 3;

// Solves the symmetric, positive system a·x = b.
void Solve(double a[kTerms][kTerms], double* b, double* x) {
  for (int i = 0; i < kTerms; ++i) {
    for (int r = i + 1; r < kTerms; ++r) {
      double f = a[r][i] / a[i][i];
      for (int c = i; c < kTerms; ++c) a[r][c] -= f * a[i][c];
      b[r] -= f * b[i];
    }
  }
  for (int i = kTerms; i-- > 0;) {
    x[i] = b[i];
    for (int c = i + 1; c < kTerms; ++c) x[i] -= a[i][c] * x[c];
    x[i] /= a[i][i];
  }
}

// f(z) = z (coefficients[0] + coefficients[1] z² + coefficients[2] z⁴) with f(threshold k) = step · k, as
// near as the density there makes it count, and on to where no threshold is, so that it rises to the end:
// points of no weight to speak of.
void FitIndex(const Codebook& book, double* coefficients) {
  const std::vector<double>& t = book.thresholds();
  int step = 1 << (4 - book.bits());
  if (t.size() == 1) {
    std::fill_n(coefficients, kTerms, 0.0);
    coefficients[0] = step / t[0];
    return;
  }
  double a[kTerms][kTerms] = {}, b[kTerms] = {};
  auto add = [&](double z, double target, double weight) {
    double powers[kTerms] = {z, z * z * z, z * z * z * z * z};
    for (int i = 0; i < kTerms; ++i) {
      b[i] += weight * powers[i] * target;
      for (int j = 0; j < kTerms; ++j) a[i][j] += weight * powers[i] * powers[j];
    }
  };
  for (size_t k = 0; k < t.size(); ++k)
    add(t[k], step * (static_cast<double>(k) + 1), std::exp(-t[k] * t[k] / 2));
  double last = t.back(), top = step * static_cast<double>(t.size());
  for (double beyond : {0.5, 1.0, 2.0, 4.0, 8.0, 14.0})
    add(last + beyond, top + 2.0 * beyond, 1e-5 / std::pow(1 + beyond / last, 12));
  Solve(a, b, coefficients);
}

// The magnitude's centroid after `level`, of the 3 bits that the fast encoder makes.
double CentroidOf(const Codebook& book, int level, uint32_t magnitude) {
  int kept = KeptBits(book.bits(), level);
  return book.merged_centroids(kept)[magnitude >> (4 - kept)];
}

FastEncodeTable::Levels MakeLevels(const Codebook& book) {
  FastEncodeTable::Levels levels{};
  for (int level = 0; level < 2; ++level) {
    auto c = [&](uint32_t m) { return CentroidOf(book, level, m); };
    double along[4] = {c(0), c(2) - c(0), c(4) - c(2), c(6) - c(4)};
    std::copy_n(along, 4, levels.along[level]);
  }
  for (int level = 0; level < 3; ++level) {
    auto v = [&](uint32_t m) {
      double c = CentroidOf(book, level, m);
      if (level == 2) c = FromF16(ToF16(static_cast<float>(c)));  // as the kernel's table has it
      return c * c;
    };
    double square[8] = {v(0),
                        v(4) - v(0),
                        v(2) - v(0),
                        v(6) - v(4) - v(2) + v(0),
                        v(1) - v(0),
                        v(5) - v(4) - v(1) + v(0),
                        v(3) - v(2) - v(1) + v(0),
                        v(7) - v(6) - v(5) - v(3) + v(4) + v(2) + v(1) - v(0)};
    std::copy_n(square, 8, levels.square[level]);
    levels.ratio[level] = RatioOf(book, level);
  }
  return levels;
}

}  // namespace

DimTable MakeDimTable(uint32_t dim, uint64_t seed) {
  DimTable table{};
  table.dim = dim;
  table.power = 1u << std::countr_zero(dim);
  table.odd = dim / table.power;
  constexpr uint64_t kGolden = 0x9E3779B97F4A7C15u;  // core/codec/rotation.h tells the signs
  uint64_t base = Mix64(seed + kGolden);
  for (uint64_t round = 0; round < 2; ++round) {
    for (uint64_t w = 0; w < kMaxCodecDim / 64; ++w)
      table.signs[round][w] = Mix64(base + (16 * round + w + 1) * kGolden);
  }
  for (uint32_t j = 0; j < table.odd; ++j) {
    for (uint32_t k = 0; k < table.odd; ++k) {
      double angle = 2 * std::numbers::pi * (j * k % table.odd) / table.odd;
      table.hartley[j * table.odd + k] =
          static_cast<float>((std::cos(angle) + std::sin(angle)) / std::sqrt(static_cast<double>(table.odd)));
    }
  }
  for (int bits = kMinBits; bits <= kMaxCodeBits; ++bits) {
    const Codebook& book = Codebook::Get(dim, bits);
    BookTable& out = table.books[bits - kMinBits];
    std::copy(book.float_thresholds().begin(), book.float_thresholds().end(), out.thresholds);
    for (int kept = 1; kept <= bits; ++kept)
      std::copy_n(book.table(kept), 1 << (kept - 1), out.centroids[kept]);
    for (int level = 0; level < 4; ++level) out.ratio[level] = RatioOf(book, level);
  }
  return table;
}

FastEncodeTable MakeFastEncodeTable(uint32_t dim) {
  FastEncodeTable table{};
  table.root = std::sqrt(static_cast<float>(dim));
  for (int bits = 2; bits <= 4; ++bits) {
    const Codebook& book = Codebook::Get(dim, bits);
    double coefficients[kTerms];
    FitIndex(book, coefficients);
    for (int i = 0; i < kTerms; ++i) table.index[bits - 2][i] = TwoHalves(coefficients[kTerms - 1 - i] / 15);
    table.centroids[bits - 2] = MakeNibbleTable(book, bits);
    table.levels[bits - 2] = MakeLevels(book);
  }
  return table;
}

FastDecodeTable MakeFastDecodeTable(uint32_t dim) {
  FastDecodeTable table{};
  for (int bits = kMinBits; bits <= kMaxCodeBits; ++bits) {
    const Codebook& book = Codebook::Get(dim, bits);
    for (int kept = 2; kept <= std::min(bits, 4); ++kept)
      table.centroids[bits - 2][kept - 2] = MakeNibbleTable(book, kept);
    for (int level = 0; level < 4; ++level) table.ratio[bits - 2][level] = RatioOf(book, level);
  }
  return table;
}

std::vector<uint16_t> EncodeImage(uint32_t dim, uint64_t seed, DType type) {
  auto columns = RotationColumns(dim, seed);
  size_t size = size_t{dim} * dim;
  std::vector<uint16_t> image(size * EncodePasses(dim));
  for (uint32_t n = 0; n < dim; ++n) {
    for (uint32_t k = 0; k < dim; ++k) {
      float value = columns[k][ColumnChannel(dim, n)];
      for (int pass = 0; pass < EncodePasses(dim); ++pass) {
        uint16_t rounded = type == DType::kBf16 ? ToBf16(value) : ToF16(value);
        image[pass * size + ImageIndex(dim, n, k)] = rounded;
        value -= type == DType::kBf16 ? FromBf16(rounded) : FromF16(rounded);
      }
    }
  }
  return image;
}

std::vector<uint16_t> DecodeImage(uint32_t dim, uint64_t seed) {
  auto columns = RotationColumns(dim, seed);
  std::vector<uint16_t> image(size_t{dim} * dim);
  for (uint32_t n = 0; n < dim; ++n) {
    for (uint32_t k = 0; k < dim; ++k)
      image[ImageIndex(dim, n, k)] = ToF16(columns[ColumnChannel(dim, n)][ColumnChannel(dim, k)]);
  }
  return image;
}

}  // namespace quire::cuda

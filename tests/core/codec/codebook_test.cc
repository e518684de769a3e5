// Codebooks against the reference tables (tests/data/codebooks.json) and, where there are none, against
// numerical quadrature.
#include "core/codec/codebook.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/str_cat.h"

namespace quire {
namespace {

double Tolerance(int bits) { return bits <= 6 ? 1e-6 : 1e-4; }

TEST(CodebookTest, AgreesWithReferenceTables) {
  nlohmann::json tables = nlohmann::json::parse(std::ifstream(QUIRE_TEST_DATA "/codebooks.json"))["tables"];
  int checked = 0;
  for (uint32_t dim : {64u, 80u, 96u, 128u, 256u}) {
    for (int bits = 1; bits <= 8; ++bits) {
      SCOPED_TRACE(absl::StrCat("d=", dim, " b=", bits));
      const auto& expected = tables.at(absl::StrCat("d", dim, "_b", bits));
      const Codebook& book = Codebook::Get(dim, bits);
      ASSERT_EQ(book.centroids().size(), expected["centroids_times_sqrt_d"].size());
      ASSERT_EQ(book.thresholds().size(), expected["thresholds_times_sqrt_d"].size());
      for (size_t k = 0; k < book.centroids().size(); ++k) {
        EXPECT_NEAR(book.centroids()[k], expected["centroids_times_sqrt_d"][k].get<double>(), Tolerance(bits))
            << k;
      }
      for (size_t k = 0; k < book.thresholds().size(); ++k) {
        EXPECT_NEAR(book.thresholds()[k], expected["thresholds_times_sqrt_d"][k].get<double>(),
                    Tolerance(bits))
            << k;
      }
      EXPECT_NEAR(book.mse(), expected["mse"].get<double>(), 1e-6 * expected["mse"].get<double>() + 1e-10);
      if (expected.contains("mse_when_truncated_to_bits")) {
        for (const auto& [kept, mse] : expected["mse_when_truncated_to_bits"].items()) {
          EXPECT_NEAR(book.truncated_mse(std::stoi(kept)), mse.get<double>(), Tolerance(bits)) << kept;
        }
      }
      ++checked;
    }
  }
  EXPECT_EQ(checked, 40);
}

// Independent of the library's closed forms: Simpson's rule on z = x·sqrt(d).
struct Quadrature {
  explicit Quadrature(uint32_t dim) : d(dim) {}
  double Density(double z) const { return std::pow(std::max(0.0, 1 - z * z / d), (d - 3) / 2.0); }
  template <typename F>
  double Integrate(double a, double b, F f) const {
    const int n = 400;
    double h = (b - a) / n, sum = f(a) * Density(a) + f(b) * Density(b);
    for (int i = 1; i < n; ++i) sum += (i % 2 ? 4 : 2) * f(a + i * h) * Density(a + i * h);
    return sum * h / 3;
  }
  double d;
};

TEST(CodebookTest, EveryDimIsStationaryByQuadrature) {
  for (uint32_t dim = 16; dim <= 576; dim += 16) {
    Quadrature q(dim);
    double edge = std::min(std::sqrt(double{dim * 1.0}), 9.0);
    double total = q.Integrate(0, edge / 3, [](double) { return 1.0; }) +
                   q.Integrate(edge / 3, edge, [](double) { return 1.0; });
    for (int bits : {1, 2, 3, 4, 6, 8}) {
      SCOPED_TRACE(absl::StrCat("d=", dim, " b=", bits));
      const Codebook& book = Codebook::Get(dim, bits);
      const auto& c = book.centroids();
      double mse = 0;
      for (size_t k = 0; k < c.size(); ++k) {
        double low = k == 0 ? 0 : book.thresholds()[k - 1],
               high = k + 1 == c.size() ? edge : book.thresholds()[k];
        ASSERT_LT(low, c[k]);
        ASSERT_LT(c[k], high);
        double mass = q.Integrate(low, high, [](double) { return 1.0; });
        EXPECT_NEAR(c[k], q.Integrate(low, high, [](double z) { return z; }) / mass, 2e-6) << k;
        if (k > 0) {
          EXPECT_NEAR(low, (c[k - 1] + c[k]) / 2, 1e-12);
        }
        mse += q.Integrate(low, high, [&](double z) { return (z - c[k]) * (z - c[k]); }) / total;
      }
      EXPECT_NEAR(book.mse(), mse, 1e-5 * mse);
    }
  }
}

TEST(CodebookTest, TruncatedCellsDecodeToTheirMeans) {
  for (uint32_t dim : {16u, 112u, 128u, 576u}) {
    Quadrature q(dim);
    double edge = std::min(std::sqrt(double{dim * 1.0}), 9.0);
    for (int bits : {3, 4, 8}) {
      const Codebook& book = Codebook::Get(dim, bits);
      for (int kept = 1; kept <= bits; ++kept) {
        const auto& merged = book.merged_centroids(kept);
        ASSERT_EQ(merged.size(), size_t{1} << (kept - 1));
        size_t cells = book.centroids().size() / merged.size();
        for (size_t k = 0; k < merged.size(); ++k) {
          double low = k == 0 ? 0 : book.thresholds()[k * cells - 1];
          double high = k + 1 == merged.size() ? edge : book.thresholds()[(k + 1) * cells - 1];
          double mean = q.Integrate(low, high, [](double z) { return z; }) /
                        q.Integrate(low, high, [](double) { return 1.0; });
          EXPECT_NEAR(merged[k], mean, 5e-6) << dim << " " << bits << " " << kept << " " << k;
          EXPECT_EQ(book.table(kept)[k], static_cast<float>(merged[k]));
          EXPECT_EQ(book.table(kept)[merged.size() + k], -static_cast<float>(merged[k]));
        }
        if (kept > 1) {
          EXPECT_LT(book.truncated_mse(kept), book.truncated_mse(kept - 1));
          EXPECT_NEAR(book.nominal_ratio(kept - 1, kept),
                      (1 - book.truncated_mse(kept - 1)) / (1 - book.truncated_mse(kept)), 1e-7);
        }
      }
    }
  }
}

TEST(CodebookTest, CachedAndThreadSafe) {
  std::vector<const Codebook*> seen(8);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < seen.size(); ++i) threads.emplace_back([&, i] { seen[i] = &Codebook::Get(544, 7); });
  for (auto& t : threads) t.join();
  for (const Codebook* book : seen) EXPECT_EQ(book, seen[0]);
}

}  // namespace
}  // namespace quire

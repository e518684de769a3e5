// Finds the bits of each layer's K and V that cost the least divergence within a budget of stored bytes.
//
// A price is the mean KL divergence with one layer's K or V at b bits and everything else at 8 bits. The
// others are held near raw because a divergence is about quadratic in the cache's error: prices of single
// streams then add up, while beside coarse ones a stream's share would drown in the cross terms. Prices are
// measured at 2, 3 and 4 bits; above, where they are a few 1e-6 nats, they fall as the codebook's squared
// error does. From 2 bits everywhere the search buys, again and again, the bits that save the most divergence
// a byte and still fit.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/block/layout.h"
#include "core/codec/spec.h"

namespace quire::worker {

inline constexpr int kLeastPolicyBits = 2, kMostPolicyBits = 8, kMostPricedBits = 4;

// "3.5": bits an element of K and V; "25%": of the layout's dtype; "4500B": bytes a token over all layers.
// All mean whole objects (ObjectBitsOf). Returns bits an element. INVALID_ARGUMENT if text is none of these.
absl::StatusOr<double> ParseBudget(std::string_view text, const Layout& layout);

struct LayerBits {
  int k = kLeastPolicyBits, v = kLeastPolicyBits;
  friend bool operator==(const LayerBits&, const LayerBits&) = default;
};
using Policy = std::vector<LayerBits>;  // [layer]

// The shortest spec: what most layers have, then the others. REQUIRES: policy is not empty.
absl::StatusOr<CodecSpec> SpecOf(const Policy& policy);

// The specs whose divergence makes the prices. REQUIRES: every layer has K and V. First all at 8 bits, then
// (layer, K or V, 2…4 bits).
std::vector<std::string> PriceProbes(const Layout& layout);

class Prices {
 public:
  // kl: mean KL of each of PriceProbes(layout), in their order.
  Prices(const Layout& layout, const std::vector<double>& kl);
  // Nats; never rises with the bits.
  double K(size_t layer, int bits) const { return prices_[layer][0][static_cast<size_t>(bits)]; }
  double V(size_t layer, int bits) const { return prices_[layer][1][static_cast<size_t>(bits)]; }
  double Of(const Policy& policy) const;

 private:
  std::vector<std::array<std::array<double, kMostPolicyBits + 1>, 2>> prices_;  // [layer][K, V][bits]
};

// INVALID_ARGUMENT naming the least budget if even 2 bits everywhere don't fit.
absl::StatusOr<Policy> CheapestPolicy(const Layout& layout, const Prices& prices, double budget_bits);

// Of the specs with the same bits in all layers (an odd bit goes to K): the largest that fits the budget and
// the smallest that isn't below it. They are the same where one fits exactly; neither may be there.
struct UniformSpecs {
  std::optional<CodecSpec> below, above;
};
absl::StatusOr<UniformSpecs> UniformSpecsAround(const Layout& layout, double budget_bits);

}  // namespace quire::worker

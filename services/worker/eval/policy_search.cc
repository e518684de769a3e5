#include "services/worker/eval/policy_search.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/block/slice_map.h"
#include "core/codec/codebook.h"
#include "services/worker/eval/code_bits.h"

namespace quire::worker {
namespace {

std::string UniformText(int k, int v) { return absl::StrCat("tq:k", k, "v", v); }

// Bytes of one layer's slices in a block at all bits of K and V.
using LayerBytes = std::array<std::array<double, kMostPolicyBits + 1>, kMostPolicyBits + 1>;

absl::StatusOr<std::vector<LayerBytes>> BytesOfLayers(const Layout& layout) {
  std::vector<LayerBytes> all(layout.layers.size());
  for (size_t layer = 0; layer < all.size(); ++layer) {
    Layout alone = layout;
    alone.layers = {layout.layers[layer]};
    for (int k = kLeastPolicyBits; k <= kMostPolicyBits; ++k) {
      for (int v = kLeastPolicyBits; v <= kMostPolicyBits; ++v) {
        QUIRE_ASSIGN_OR_RETURN(const CodecSpec spec, CodecSpec::Parse(UniformText(k, v)));
        QUIRE_ASSIGN_OR_RETURN(const double bits, ObjectBitsOf(alone, spec));
        all[layer][static_cast<size_t>(k)][static_cast<size_t>(v)] =
            bits * static_cast<double>(TokenElements(alone) * kBlockTokens) / 8;
      }
    }
  }
  return all;
}

absl::StatusOr<double> ObjectBitsOf(const Layout& layout, const Policy& policy) {
  QUIRE_ASSIGN_OR_RETURN(const CodecSpec spec, SpecOf(policy));
  return worker::ObjectBitsOf(layout, spec);
}

struct Purchase {
  double saved_a_byte = 0;
  size_t layer = 0;
  LayerBits bits;
};

// Everything that could be bought next, the best first.
std::vector<Purchase> Offers(const Policy& policy, const Prices& prices,
                             const std::vector<LayerBytes>& bytes) {
  std::vector<Purchase> offers;
  for (size_t layer = 0; layer < policy.size(); ++layer) {
    const LayerBits now = policy[layer];
    const auto bytes_of = [&](LayerBits b) {
      return bytes[layer][static_cast<size_t>(b.k)][static_cast<size_t>(b.v)];
    };
    const auto offer = [&](LayerBits then, double saved) {
      offers.push_back({saved / (bytes_of(then) - bytes_of(now)), layer, then});
    };
    for (int k = now.k + 1; k <= kMostPolicyBits; ++k) {
      offer({k, now.v}, prices.K(layer, now.k) - prices.K(layer, k));
    }
    for (int v = now.v + 1; v <= kMostPolicyBits; ++v) {
      offer({now.k, v}, prices.V(layer, now.v) - prices.V(layer, v));
    }
  }
  std::stable_sort(offers.begin(), offers.end(),
                   [](const Purchase& a, const Purchase& b) { return a.saved_a_byte > b.saved_a_byte; });
  return offers;
}

}  // namespace

absl::StatusOr<double> ParseBudget(std::string_view text, const Layout& layout) {
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  const std::string_view unit(rest, static_cast<size_t>(end - rest));
  if (error != std::errc() || !std::isfinite(value) || value <= 0 ||
      !(unit.empty() || unit == "%" || unit == "B")) {
    return absl::InvalidArgumentError(absl::StrCat(
        "budget '", std::string(text),
        "': expected bits an element (3.5), a share of the uncoded cache (25%) or bytes a token (4500B)"));
  }
  if (unit == "%") return value / 100 * 8 * static_cast<double>(SizeOf(layout.dtype));
  if (unit == "B") return value * 8 / static_cast<double>(TokenElements(layout));
  return value;
}

absl::StatusOr<CodecSpec> SpecOf(const Policy& policy) {
  std::map<std::pair<int, int>, size_t> counts;
  for (const LayerBits& bits : policy) ++counts[{bits.k, bits.v}];
  const auto most = std::max_element(counts.begin(), counts.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  const LayerBits base{most->first.first, most->first.second};
  std::string text = UniformText(base.k, base.v);
  for (size_t layer = 0; layer < policy.size(); ++layer) {
    if (policy[layer] == base) continue;
    absl::StrAppend(&text, ",layers=", layer, ":k", policy[layer].k, "v", policy[layer].v);
  }
  return CodecSpec::Parse(text);
}

std::vector<std::string> PriceProbes(const Layout& layout) {
  const std::string base = UniformText(kMostPolicyBits, kMostPolicyBits);
  std::vector<std::string> probes{base};
  for (size_t layer = 0; layer < layout.layers.size(); ++layer) {
    for (const bool value : {false, true}) {
      for (int bits = kLeastPolicyBits; bits <= kMostPricedBits; ++bits) {
        probes.push_back(absl::StrCat(base, ",layers=", layer, ":k", value ? kMostPolicyBits : bits, "v",
                                      value ? bits : kMostPolicyBits));
      }
    }
  }
  return probes;
}

Prices::Prices(const Layout& layout, const std::vector<double>& kl) : prices_(layout.layers.size()) {
  size_t probe = 1;
  for (size_t layer = 0; layer < prices_.size(); ++layer) {
    for (const bool value : {false, true}) {
      auto& of = prices_[layer][value];
      const uint32_t dim = value ? layout.layers[layer].value_dim() : layout.layers[layer].key_dim();
      for (int bits = kLeastPolicyBits; bits <= kMostPricedBits; ++bits, ++probe) {
        const double measured = std::max(0.0, kl[probe] - kl[0]);
        const size_t b = static_cast<size_t>(bits);
        of[b] = bits == kLeastPolicyBits ? measured : std::min(measured, of[b - 1]);
      }
      for (int bits = kMostPricedBits + 1; bits <= kMostPolicyBits; ++bits) {
        of[static_cast<size_t>(bits)] =
            of[kMostPricedBits] * Codebook::Get(dim, bits).mse() / Codebook::Get(dim, kMostPricedBits).mse();
      }
    }
  }
}

double Prices::Of(const Policy& policy) const {
  double sum = 0;
  for (size_t layer = 0; layer < policy.size(); ++layer) {
    sum += K(layer, policy[layer].k) + V(layer, policy[layer].v);
  }
  return sum;
}

absl::StatusOr<Policy> CheapestPolicy(const Layout& layout, const Prices& prices, double budget_bits) {
  Policy policy(layout.layers.size());
  QUIRE_ASSIGN_OR_RETURN(const double least, ObjectBitsOf(layout, policy));
  if (least > budget_bits) {
    return absl::InvalidArgumentError(
        absl::StrFormat("a budget of %.2f bits an element can't be met: %s takes %.2f", budget_bits,
                        UniformText(kLeastPolicyBits, kLeastPolicyBits), least));
  }
  QUIRE_ASSIGN_OR_RETURN(const std::vector<LayerBytes> bytes, BytesOfLayers(layout));
  for (bool bought = true; bought;) {
    bought = false;
    for (const Purchase& offer : Offers(policy, prices, bytes)) {
      Policy then = policy;
      then[offer.layer] = offer.bits;
      QUIRE_ASSIGN_OR_RETURN(const double bits, ObjectBitsOf(layout, then));
      if (bits > budget_bits) continue;
      policy = std::move(then);
      bought = true;
      break;
    }
  }
  return policy;
}

absl::StatusOr<UniformSpecs> UniformSpecsAround(const Layout& layout, double budget_bits) {
  UniformSpecs specs;
  for (int sum = 2 * kLeastPolicyBits; sum <= 2 * kMostPolicyBits; ++sum) {
    QUIRE_ASSIGN_OR_RETURN(const CodecSpec spec, CodecSpec::Parse(UniformText((sum + 1) / 2, sum / 2)));
    QUIRE_ASSIGN_OR_RETURN(const double bits, worker::ObjectBitsOf(layout, spec));
    if (bits <= budget_bits) specs.below = spec;
    if (bits >= budget_bits && !specs.above.has_value()) specs.above = spec;
  }
  return specs;
}

}  // namespace quire::worker

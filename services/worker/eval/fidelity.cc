#include "services/worker/eval/fidelity.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/block/slice_map.h"

namespace quire::worker {
namespace {

// Linear between neighbours. Sorts values.
double Quantile(std::vector<double>& values, double q) {
  std::sort(values.begin(), values.end());
  const double at = q * static_cast<double>(values.size() - 1);
  const size_t below = static_cast<size_t>(at), above = std::min(below + 1, values.size() - 1);
  return values[below] + (values[above] - values[below]) * (at - static_cast<double>(below));
}

double Mean(const std::vector<double>& values) {
  return values.empty()
             ? 0
             : std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

int MostBits(const LayerCodec& codec) { return std::max(codec.k_bits, codec.v_bits); }

// Levels of a layer of these bits: two bits, one, one, all the rest.
int LevelsOfBits(int bits) { return bits > 4 ? 4 : std::max(1, bits - 1); }
int BitsAt(int bits, int levels) { return levels >= 4 ? bits : std::min(bits, 1 + levels); }

CodeBits TqBits(const LayerCodec& codec, double d, int levels) {
  const double block = kBlockTokens * d;
  const int k_levels = std::min(levels, LevelsOfBits(codec.k_bits));
  CodeBits bits;
  // Beside the indices K has a bf16 scale a vector, an int8 correction of it a level, and a block mean of
  // int8 and one bf16 step; V an int8 scale a vector, one bf16 base a block, and a correction if it reaches
  // level 3.
  bits.k = BitsAt(codec.k_bits, levels) + (16 + 8 * (k_levels - 1)) / d + (8 * d + 16) / block;
  bits.v = BitsAt(codec.v_bits, levels) + (levels >= 4 && codec.v_bits > 4 ? 16 : 8) / d + 16 / block;
  return bits;
}

}  // namespace

absl::StatusOr<CodeBits> BitsOf(const Layout& layout, const CodecSpec& spec, int levels) {
  CodeBits sum;
  for (uint32_t i = 0; i < layout.layers.size(); ++i) {
    const LayerCodec codec = spec.ForLayer(i);
    CodeBits bits;
    if (codec.codec == CodecId::kRaw) {
      bits.k = bits.v = 8.0 * static_cast<double>(SizeOf(layout.dtype));
    } else if (codec.codec == CodecId::kTq) {
      bits = TqBits(codec, layout.layers[i].streams.front().dim, levels == 0 ? kMaxLevels : levels);
    } else {
      return absl::UnimplementedError(
          absl::StrCat("the bits of codec ", std::string(Name(codec.codec)), " are not known"));
    }
    sum.k += bits.k / static_cast<double>(layout.layers.size());
    sum.v += bits.v / static_cast<double>(layout.layers.size());
  }
  return sum;
}

absl::StatusOr<int> LevelsFor(const Layout& layout, const CodecSpec& spec, int keep_bits) {
  int most = 0;
  for (uint32_t i = 0; i < layout.layers.size(); ++i) most = std::max(most, MostBits(spec.ForLayer(i)));
  if (keep_bits < 2 || keep_bits > most || (keep_bits > 4 && keep_bits < most)) {
    return absl::InvalidArgumentError(
        absl::StrCat("codes of ", spec.ToString(), " can't be read at ", keep_bits,
                     " bits: levels end at 2, 3, 4 and all of at most ", most, " bits"));
  }
  return LevelsOfBits(keep_bits);
}

FidelityReport Summarize(const std::vector<TextFidelity>& texts, uint64_t prefix_elements) {
  FidelityReport report;
  std::vector<double> kl, nll;
  size_t same = 0;
  double bytes = 0;
  for (const TextFidelity& text : texts) {
    kl.insert(kl.end(), text.kl.begin(), text.kl.end());
    nll.insert(nll.end(), text.nll_difference.begin(), text.nll_difference.end());
    same += static_cast<size_t>(std::count(text.same_top.begin(), text.same_top.end(), true));
    bytes += static_cast<double>(text.object_bytes);
  }
  report.texts = texts.size();
  report.scored = kl.size();
  report.object_bits = 8 * bytes / (static_cast<double>(prefix_elements) * static_cast<double>(texts.size()));
  report.kl_mean = Mean(kl);
  report.kl_median = Quantile(kl, 0.5);
  report.kl_p99 = Quantile(kl, 0.99);
  report.top1 = static_cast<double>(same) / static_cast<double>(kl.size());
  report.ppl_change = std::expm1(Mean(nll));
  return report;
}

std::string FidelityReport::Json() const {
  nlohmann::ordered_json json = {
      {"codec", codec},     {"bits_k", bits.k},         {"bits_v", bits.v},
      {"kl_mean", kl_mean}, {"kl_median", kl_median},   {"kl_p99", kl_p99},
      {"top1", top1},       {"ppl_change", ppl_change}, {"object_bits", object_bits},
      {"texts", texts},     {"scored_tokens", scored}};
  if (keep_bits > 0) json["keep_bits"] = keep_bits;
  return json.dump();
}

std::string Table(const std::vector<FidelityReport>& reports) {
  size_t width = 5;
  auto name = [](const FidelityReport& r) {
    return r.keep_bits > 0 ? absl::StrCat(r.codec, " at ", r.keep_bits) : r.codec;
  };
  for (const FidelityReport& r : reports) width = std::max(width, name(r).size());
  const int w = static_cast<int>(width);
  std::string out = absl::StrFormat("%-*s  %11s  %6s  %10s  %10s  %10s  %7s  %8s\n", w, "codec", "K/V bits",
                                    "object", "KL mean", "KL median", "KL 99 %", "top-1 %", "PPL %");
  for (const FidelityReport& r : reports) {
    absl::StrAppendFormat(&out, "%-*s  %5.2f/%5.2f  %6.2f  %10.3e  %10.3e  %10.3e  %7.2f  %+8.3f\n", w,
                          name(r), r.bits.k, r.bits.v, r.object_bits, r.kl_mean, r.kl_median, r.kl_p99,
                          100 * r.top1, 100 * r.ppl_change);
  }
  return out;
}

}  // namespace quire::worker

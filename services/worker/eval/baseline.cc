#include "services/worker/eval/baseline.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/float16.h"
#include "core/codec/codebook.h"
#include "core/codec/rotation.h"
#include "core/codec/tq.h"

namespace quire::worker {
namespace {

constexpr size_t kGgmlBlock = 32;
constexpr std::string_view kTurboQuant = "turboquant:";

float AsF16(float value) { return FromF16(ToF16(value)); }

class Bf16 final : public Baseline {
 public:
  const std::string& name() const override { return name_; }
  double bits() const override { return 16; }
  void Apply(std::span<float> rows) const override {
    for (float& value : rows) value = FromBf16(ToBf16(value));
  }

 private:
  const std::string name_ = "bf16";
};

class Ggml final : public Baseline {
 public:
  explicit Ggml(bool four) : four_(four), name_(four ? "q4_0" : "q8_0") {}
  const std::string& name() const override { return name_; }
  double bits() const override { return (four_ ? 4 : 8) + 16.0 / kGgmlBlock; }
  void Apply(std::span<float> rows) const override { four_ ? RoundTripQ40(rows) : RoundTripQ80(rows); }

 private:
  const bool four_;
  const std::string name_;
};

class TurboQuant final : public Baseline {
 public:
  TurboQuant(int bits, uint32_t dim, uint64_t seed)
      : book_(Codebook::Get(dim, bits)),
        rotation_(dim, seed),
        name_(absl::StrCat(std::string(kTurboQuant), bits)) {}
  const std::string& name() const override { return name_; }
  double bits() const override { return book_.bits() + 16.0 / book_.dim(); }
  void Apply(std::span<float> rows) const override;

 private:
  const Codebook& book_;
  const Rotation rotation_;
  const std::string name_;
};

void TurboQuant::Apply(std::span<float> rows) const {
  const size_t d = book_.dim();
  const double root = std::sqrt(static_cast<double>(d));
  std::vector<float> y(d * kTqTokens), inverse(kTqTokens), scales(kTqTokens);  // y is channel-major
  for (size_t t = 0; t < kTqTokens; ++t) {
    double energy = 0;
    for (size_t c = 0; c < d; ++c) {
      y[c * kTqTokens + t] = rows[t * d + c];
      energy += double{rows[t * d + c]} * rows[t * d + c];
    }
    inverse[t] = energy > 0 ? static_cast<float>(root / std::sqrt(energy)) : 0.0f;
    // Centroids are scaled by sqrt(d): those of a unit vector's coordinates are that much smaller.
    scales[t] = static_cast<float>(FromBf16(ToBf16(static_cast<float>(std::sqrt(energy)))) / root);
  }
  rotation_.ApplyBlock(y.data());
  std::vector<uint8_t> codes(y.size());
  TqIndex(book_, y.data(), inverse.data(), codes.data());
  TqDequantise(book_, book_.bits(), codes.data(), scales.data(), y.data());
  rotation_.ApplyTransposedBlock(y.data());
  for (size_t t = 0; t < kTqTokens; ++t) {
    for (size_t c = 0; c < d; ++c) rows[t * d + c] = y[c * kTqTokens + t];
  }
}

// The bits behind "turboquant:", or 0.
int TurboQuantBits(std::string_view text) {
  if (text.size() != kTurboQuant.size() + 1 || text.substr(0, kTurboQuant.size()) != kTurboQuant) return 0;
  const int bits = text.back() - '0';
  return bits >= 1 && bits <= kMaxCodeBits ? bits : 0;
}

}  // namespace

// The value of largest magnitude (the first of equals) becomes code 0, which means −8 scales.
void RoundTripQ40(std::span<float> values) {
  for (size_t first = 0; first < values.size(); first += kGgmlBlock) {
    const std::span<float> block = values.subspan(first, kGgmlBlock);
    float largest = 0;
    for (float value : block) {
      if (std::fabs(value) > std::fabs(largest)) largest = value;
    }
    const float scale = largest / -8, inverse = scale != 0 ? 1 / scale : 0.0f, stored = AsF16(scale);
    for (float& value : block) {
      const int code = std::min(15, static_cast<int>(value * inverse + 8.5f));
      value = static_cast<float>(code - 8) * stored;
    }
  }
}

void RoundTripQ80(std::span<float> values) {
  for (size_t first = 0; first < values.size(); first += kGgmlBlock) {
    const std::span<float> block = values.subspan(first, kGgmlBlock);
    float largest = 0;
    for (float value : block) largest = std::max(largest, std::fabs(value));
    const float scale = largest / 127, inverse = scale != 0 ? 1 / scale : 0.0f, stored = AsF16(scale);
    for (float& value : block) value = std::round(value * inverse) * stored;
  }
}

bool IsBaselineName(std::string_view text) {
  return text == "bf16" || text == "q4_0" || text == "q8_0" ||
         text.substr(0, kTurboQuant.size()) == kTurboQuant;
}

absl::StatusOr<std::unique_ptr<const Baseline>> MakeBaseline(std::string_view text, const Layout& layout) {
  const uint32_t dim = layout.layers.front().key_dim();
  if (text == "bf16") return std::make_unique<Bf16>();
  if (text == "q4_0" || text == "q8_0") {
    if (dim % kGgmlBlock != 0) {
      return absl::InvalidArgumentError(absl::StrCat(std::string(text), " codes blocks of ", kGgmlBlock,
                                                     " values, which heads of ", dim, " are no multiple of"));
    }
    return std::make_unique<Ggml>(text == "q4_0");
  }
  const int bits = TurboQuantBits(text);
  if (bits == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("codec ", std::string(text),
                     ": a baseline is bf16, q4_0, q8_0 or turboquant:1 to turboquant:", kMaxCodeBits));
  }
  return std::make_unique<TurboQuant>(bits, dim, layout.rotation_seed);
}

}  // namespace quire::worker

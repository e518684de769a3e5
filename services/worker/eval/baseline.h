// Codecs that quire-eval compares with and that nothing stores: other projects' formats, exact in every value
// they decode to, and none of their bytes.
//
//   bf16            every value rounded to bf16
//   q4_0, q8_0      llama.cpp's blocks of 32 values with one f16 scale: 4.5 and 8.5 bits a value
//   turboquant:b    textbook TurboQuant of b bits, 1…8: a rotation, the exact codebook, and the vector's norm
//                   in bf16 as its scale; no mean
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/block/layout.h"

namespace quire::worker {

// Immutable, thread-safe.
class Baseline {
 public:
  virtual ~Baseline() = default;
  virtual const std::string& name() const = 0;
  // A value, scales counted.
  virtual double bits() const = 0;
  // rows [64][d] of one head's K or V become decode(encode(rows)).
  virtual void Apply(std::span<float> rows) const = 0;
};

bool IsBaselineName(std::string_view text);

// INVALID_ARGUMENT if text is no baseline's name, or its blocks don't fit the layout's head size.
// REQUIRES: all streams of the layout have one head size.
absl::StatusOr<std::unique_ptr<const Baseline>> MakeBaseline(std::string_view text, const Layout& layout);

// The formats themselves. REQUIRES: values.size() % 32 == 0.
void RoundTripQ40(std::span<float> values);
void RoundTripQ80(std::span<float> values);

}  // namespace quire::worker

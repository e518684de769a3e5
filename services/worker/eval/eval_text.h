// A text file as tokens, and its name among measurements.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/digest.h"
#include "core/text/tokenizer.h"

namespace quire::worker {

struct EvalText {
  std::string path;
  std::vector<uint32_t> tokens;  // prefix, scored, and one more if there is one
  Digest digest{};               // SHA-256 of the tokens as u32, little-endian
};

// Reads as much of a file as is needed. INVALID_ARGUMENT stating how many tokens there are if too few.
absl::StatusOr<EvalText> ReadEvalText(const std::string& path, const Tokenizer& tokenizer, uint32_t prefix,
                                      uint32_t score);

}  // namespace quire::worker

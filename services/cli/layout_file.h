// A layout as a JSON file, for people and scripts:
//
//   {"model": "HuggingFaceTB/SmolLM2-135M-Instruct@main+q4_1",      or "model_digest": 64 hex digits
//    "dtype": "bf16", "rope_state": "", "rotation_seed": 880776,     all optional
//    "uniform": {"layers": 30, "kv_heads": 3, "head_dim": 64}}       or
//   {…, "layers": [{"streams": [{"kind": "key", "heads": 3, "dim": 64, "sliding_window": 0}, {"kind":
//   "value", …}]}, …]}
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "core/block/layout.h"

namespace quire::cli {

// INVALID_ARGUMENT naming the field.
absl::StatusOr<Layout> ParseLayoutJson(const std::string& text);
absl::StatusOr<Layout> ReadLayoutFile(const std::string& path);

}  // namespace quire::cli

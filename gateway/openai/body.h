// A request's body as JSON, with bounds on what parsing may cost.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "gateway/openai/error.h"

namespace quire::gateway {

inline constexpr size_t kMaxDepth = 64;  // nested arrays and objects
inline constexpr size_t kMaxValues =
    1'000'000;  // in the whole body; a value costs some hundred bytes while it is parsed

// Parses a body that must be one JSON object. Never throws.
Problem ParseBody(std::string_view body, nlohmann::json* out);

}  // namespace quire::gateway

// Logging: JSON lines on stderr through spdlog. Never log prompts, keys, tokens or secrets.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace quire::runtime {

// level: trace, debug, info, warn, error. Call once, before threads start; later use spdlog::info(…) and
// friends directly.
absl::Status InitLogging(const std::string& service, const std::string& level);

}  // namespace quire::runtime

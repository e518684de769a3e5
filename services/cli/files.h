// Whole files, with statuses that name the path.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/bytes.h"

namespace quire::cli {

absl::StatusOr<std::vector<uint8_t>> ReadFile(const std::string& path);
absl::Status WriteFile(const std::string& path, Bytes bytes);

}  // namespace quire::cli

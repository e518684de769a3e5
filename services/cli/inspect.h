// What an object says about itself.
#pragma once

#include <iosfwd>
#include <nlohmann/json_fwd.hpp>

#include "absl/status/statusor.h"
#include "core/base/bytes.h"
#include "core/block/object.h"

namespace quire::cli {

// How many of the header's levels `bytes` bytes hold. DATA_LOSS if they end within one.
absl::StatusOr<int> LevelsPresent(const BlockHeader& header, uint64_t bytes);

// The header of an object as JSON: identity, part, codec of each layer, extent and relative error
// (‖x−x̂‖²/‖x‖²: K and V of each layer, and their means) of each level.
absl::StatusOr<nlohmann::ordered_json> InspectObject(Bytes object);
// The same for reading.
void PrintInspection(const nlohmann::ordered_json& inspection, std::ostream& out);

}  // namespace quire::cli

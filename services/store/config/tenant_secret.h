// The secret from which tenants' names in storage are made.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace quire::store {

// The content of a file; of a new one with 32 random bytes, mode 0600, where there is none and `make` says
// so. PERMISSION_DENIED where others may read it.
absl::StatusOr<std::string> ReadTenantSecret(const std::string& path, bool make);

}  // namespace quire::store

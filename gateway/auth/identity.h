// Who a request belongs to.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace quire::gateway {

struct Identity {
  std::string tenant;  // empty: the default tenant, as in quire.v1
};

// Thread-safe. No keys are configured, so every request, whatever key it shows, belongs to the default
// tenant: OpenAI's clients always send one.
class Authenticator {
 public:
  // authorization: the header's value, or nullptr. UNAUTHENTICATED if the key is unknown.
  absl::StatusOr<Identity> Authenticate(const std::string* authorization) const;
};

}  // namespace quire::gateway

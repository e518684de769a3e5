// The one place where absl::Status becomes a gRPC status, and back.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace quire::runtime {

grpc::Status ToGrpc(const absl::Status& status);
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace quire::runtime

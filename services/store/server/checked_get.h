// A Get's request, checked: what the ways to serve it have in common.
#pragma once

#include <optional>
#include <vector>

#include "quire/v1/kv_store.pb.h"
#include "services/store/engine/local_store.h"

namespace quire::store {

struct CheckedGet {
  LocalStore::View view;
  std::vector<BlockIdentity> identities;
  std::optional<DType> decode;

  // `ns`: the request's, resolved. NOT_FOUND for an unknown layout, INVALID_ARGUMENT for what makes no sense.
  static absl::StatusOr<CheckedGet> Of(const LocalStore& store, const Namespace& ns,
                                       const v1::GetRequest& request);
};

// Levels of an object that a request asks for, of `present` ones.
int LevelsAskedFor(const v1::GetRequest& request, const BlockHeader& header, int present);

}  // namespace quire::store

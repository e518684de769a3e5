#include "services/store/server/checked_get.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/engine/levels.h"
#include "services/store/wire/convert.h"

namespace quire::store {

absl::StatusOr<CheckedGet> CheckedGet::Of(const LocalStore& store, const Namespace& ns,
                                          const v1::GetRequest& request) {
  CheckedGet get;
  QUIRE_ASSIGN_OR_RETURN(std::vector<BlockAnnounce> blocks, AnnouncesFromProto(request.blocks()));
  for (const BlockAnnounce& block : blocks) get.identities.push_back(block.identity);
  if (!v1::GetRequest::Order_IsValid(request.order())) {
    return absl::InvalidArgumentError(
        absl::StrCat("order ", static_cast<int>(request.order()), " is not known"));
  }
  if (!(request.max_relative_error() >= 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_relative_error ", request.max_relative_error(), " is no error"));
  }
  if (request.has_decode()) {
    if (request.order() == v1::GetRequest::BY_LEVEL) {
      return absl::InvalidArgumentError("order BY_LEVEL gives codes only: decoded tensors have no levels");
    }
    QUIRE_ASSIGN_OR_RETURN(get.decode, FromProto(request.decode().dtype()));
  }
  QUIRE_ASSIGN_OR_RETURN(get.view, store.Resolve(ns, FromProto(request.part())));
  return get;
}

int LevelsAskedFor(const v1::GetRequest& request, const BlockHeader& header, int present) {
  return std::min(LevelsForBits(header, present, request.max_bits()),
                  LevelsForError(header, present, request.max_relative_error()));
}

}  // namespace quire::store

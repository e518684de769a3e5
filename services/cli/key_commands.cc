// pin, unpin, touch and prefetch: calls that name keys and count.
#include <nlohmann/json.hpp>
#include <ostream>

#include "core/base/status_macros.h"
#include "services/cli/commands.h"
#include "services/cli/session.h"

namespace quire::cli {
namespace {

// Prints what `call` counted as `did` ("pinned").
template <typename Call>
absl::StatusOr<int> Count(const Arguments& arguments, std::ostream& out, const char* did, Call call) {
  QUIRE_ASSIGN_OR_RETURN(std::vector<Digest> keys, ParseKeys(arguments));
  QUIRE_ASSIGN_OR_RETURN(Session session, Open(arguments));
  QUIRE_ASSIGN_OR_RETURN(uint32_t count, call(session, keys));
  if (arguments.json) {
    PrintJson({{did, count}}, out);
  } else {
    out << did << " " << count << " of " << keys.size() << " blocks\n";
  }
  return kDone;
}

}  // namespace

absl::StatusOr<int> Pin(const Arguments& arguments, std::ostream& out) {
  return Count(arguments, out, "pinned",
               [](Session& s, const std::vector<Digest>& keys) { return s.store->Pin(s.ns, keys); });
}

absl::StatusOr<int> Unpin(const Arguments& arguments, std::ostream& out) {
  return Count(arguments, out, "unpinned",
               [](Session& s, const std::vector<Digest>& keys) { return s.store->Unpin(s.ns, keys); });
}

absl::StatusOr<int> Touch(const Arguments& arguments, std::ostream& out) {
  return Count(arguments, out, "touched",
               [](Session& s, const std::vector<Digest>& keys) { return s.store->Touch(s.ns, keys); });
}

absl::StatusOr<int> Prefetch(const Arguments& arguments, std::ostream& out) {
  QUIRE_ASSIGN_OR_RETURN(store::Tier tier, ParseTier(arguments.tier));
  return Count(arguments, out, "queued", [&](Session& s, const std::vector<Digest>& keys) {
    return s.store->Prefetch(s.ns, keys, tier);
  });
}

}  // namespace quire::cli

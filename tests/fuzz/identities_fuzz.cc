// The identities file: who may call a server.
#include <string>
#include <vector>

#include "services/runtime/identities.h"
#include "tests/fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using quire::runtime::Identities;
  using quire::runtime::IdentityPtr;
  using quire::runtime::Role;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  absl::StatusOr<Identities> identities = Identities::Parse(text);
  if (!identities.ok()) {
    QUIRE_FUZZ_CHECK(absl::IsInvalidArgument(identities.status()));
    return 0;
  }
  // Nobody comes in without naming himself, and a name alone opens nothing.
  QUIRE_FUZZ_CHECK(identities->ByCertificate({}, "") == nullptr);
  IdentityPtr known = identities->ByToken("test");
  if (known != nullptr) {
    QUIRE_FUZZ_CHECK(known->role != Role::kOpen);
    if (known->role == Role::kClient)
      QUIRE_FUZZ_CHECK(*quire::runtime::TenantOf(*known, known->tenant) == known->tenant);
    if (known->role == Role::kClient)
      QUIRE_FUZZ_CHECK(!quire::runtime::TenantOf(*known, known->tenant + "x").ok());
    if (known->role == Role::kAdmin) QUIRE_FUZZ_CHECK(!quire::runtime::TenantOf(*known, "a").ok());
  }
  return 0;
}

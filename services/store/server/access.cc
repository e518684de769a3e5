#include "services/store/server/access.h"

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/api/limits.h"
#include "services/store/wire/convert.h"

namespace quire::store {

using runtime::IdentityPtr;
using runtime::Role;

absl::StatusOr<std::string> Access::Tenant(const grpc::ServerContext& context,
                                           const std::string& named) const {
  QUIRE_ASSIGN_OR_RETURN(IdentityPtr identity, authenticator_->Identify(context));
  if (named.size() > kMaxTenantBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the tenant's name has ", named.size(), " bytes: at most ", kMaxTenantBytes));
  }
  return runtime::TenantOf(*identity, named);
}

absl::StatusOr<Namespace> Access::Resolve(const grpc::ServerContext& context,
                                          const v1::Namespace& named) const {
  QUIRE_ASSIGN_OR_RETURN(std::string tenant, Tenant(context, named.tenant()));
  QUIRE_ASSIGN_OR_RETURN(Namespace ns, FromProto(named));
  ns.tenant = std::move(tenant);
  return ns;
}

absl::Status Access::CheckKnown(const grpc::ServerContext& context) const {
  return authenticator_->Identify(context).status();
}

absl::StatusOr<std::string> Access::UserName(const grpc::ServerContext& context) const {
  QUIRE_ASSIGN_OR_RETURN(IdentityPtr identity, authenticator_->Identify(context));
  if (identity->role != Role::kAdmin) return identity->name;
  return absl::PermissionDeniedError("an admin has no tenant");
}

absl::Status Access::CheckUser(const grpc::ServerContext& context) const {
  return UserName(context).status();
}

absl::Status Access::CheckAdmin(const grpc::ServerContext& context) const {
  QUIRE_ASSIGN_OR_RETURN(IdentityPtr identity, authenticator_->Identify(context));
  if (identity->role == Role::kAdmin || identity->role == Role::kOpen) return absl::OkStatus();
  return absl::PermissionDeniedError("this call is for admins");
}

absl::StatusOr<std::string> Access::QuotaTenant(const grpc::ServerContext& context,
                                                const std::string& named) const {
  QUIRE_ASSIGN_OR_RETURN(IdentityPtr identity, authenticator_->Identify(context));
  if (identity->role == Role::kAdmin) return named;
  return Tenant(context, named);
}

}  // namespace quire::store

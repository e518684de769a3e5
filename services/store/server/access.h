// Which identity may make which call, and in whose name. The whole table:
//
//   calls                               client            delegate         admin   open mode
//   KvStore with a namespace            its own tenant    any it names     no      any, "" too
//   KvStore.RegisterLayout, AttachArena yes               yes              no      yes
//   Codec                               yes               yes              yes     yes
//   StoreAdmin.GetQuota                 its own tenant    any it names     any     any
//   the rest of StoreAdmin              no                no               yes     yes
//
// "no" is PERMISSION_DENIED; whoever is nobody is UNAUTHENTICATED before anything else is looked at.
#pragma once

#include <grpcpp/grpcpp.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "quire/v1/common.pb.h"
#include "quire/v1/kv_store.pb.h"
#include "services/runtime/authenticator.h"
#include "services/store/api/kv_store.h"

namespace quire::store {

// Thread-safe.
class Access {
 public:
  explicit Access(std::shared_ptr<runtime::Authenticator> authenticator)
      : authenticator_(std::move(authenticator)) {}

  // The namespace a KvStore request is about, its tenant resolved.
  absl::StatusOr<Namespace> Resolve(const grpc::ServerContext& context, const v1::Namespace& named) const;
  // Just the tenant: of requests that name no layout.
  absl::StatusOr<std::string> Tenant(const grpc::ServerContext& context, const std::string& named) const;

  absl::Status CheckKnown(const grpc::ServerContext& context) const;  // anyone who is somebody
  absl::Status CheckUser(const grpc::ServerContext& context) const;   // a client or a delegate
  absl::Status CheckAdmin(const grpc::ServerContext& context) const;
  // The name of a client or delegate: who owns an arena.
  absl::StatusOr<std::string> UserName(const grpc::ServerContext& context) const;
  // The tenant whose quota the caller may see.
  absl::StatusOr<std::string> QuotaTenant(const grpc::ServerContext& context, const std::string& named) const;

 private:
  std::shared_ptr<runtime::Authenticator> authenticator_;
};

}  // namespace quire::store

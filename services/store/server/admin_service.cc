#include "services/store/server/admin_service.h"

#include "absl/strings/str_cat.h"
#include "services/store/wire/convert.h"

namespace quire::store {
namespace {

absl::Status NotInThisVersion(const char* call) {
  return absl::UnimplementedError(absl::StrCat("StoreAdmin.", call, " is not implemented in this version"));
}

}  // namespace

grpc::Status AdminService::Stats(grpc::ServerContext* context, const v1::StatsRequest*,
                                 v1::StatsResponse* response) {
  RpcMetrics::Call call = metrics_.Start("Stats");
  if (absl::Status status = access_.CheckAdmin(*context); !status.ok()) return call.Done(status);
  absl::StatusOr<StoreStats> stats = store_.Stats();
  if (!stats.ok()) return call.Done(stats.status());
  ToProto(*stats, response);
  response->set_version(QUIRE_VERSION);
  auto uptime = std::chrono::steady_clock::now() - start_;
  response->set_uptime_ms(
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(uptime).count()));
  return call.Done(absl::OkStatus());
}

grpc::Status AdminService::InjectFault(grpc::ServerContext* context, const v1::InjectFaultRequest* request,
                                       v1::InjectFaultResponse*) {
  RpcMetrics::Call call = metrics_.Start("InjectFault");
  if (absl::Status status = access_.CheckAdmin(*context); !status.ok()) return call.Done(status);
  return call.Done(store_.InjectFault(request->point(), request->count()));
}

grpc::Status AdminService::GetQuota(grpc::ServerContext*, const v1::GetQuotaRequest*, v1::Quota*) {
  return metrics_.Start("other").Done(NotInThisVersion("GetQuota"));
}
grpc::Status AdminService::SetQuota(grpc::ServerContext*, const v1::Quota*, v1::Quota*) {
  return metrics_.Start("other").Done(NotInThisVersion("SetQuota"));
}
grpc::Status AdminService::Drain(grpc::ServerContext*, const v1::DrainRequest*, v1::DrainResponse*) {
  return metrics_.Start("other").Done(NotInThisVersion("Drain"));
}
grpc::Status AdminService::DeleteTenant(grpc::ServerContext*, const v1::DeleteTenantRequest*,
                                        v1::DeleteTenantResponse*) {
  return metrics_.Start("other").Done(NotInThisVersion("DeleteTenant"));
}
grpc::Status AdminService::Verify(grpc::ServerContext*, const v1::VerifyRequest*,
                                  grpc::ServerWriter<v1::VerifyResponse>*) {
  return metrics_.Start("other").Done(NotInThisVersion("Verify"));
}

}  // namespace quire::store

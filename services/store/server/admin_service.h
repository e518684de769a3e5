// quire.v1.StoreAdmin over a LocalStore.
#pragma once

#include <chrono>

#include "quire/v1/store_admin.grpc.pb.h"
#include "services/store/engine/local_store.h"
#include "services/store/server/access.h"
#include "services/store/server/drainer.h"
#include "services/store/server/rpc_metrics.h"
#include "services/store/server/stream_watch.h"

namespace quire::store {

// References are borrowed. Thread-safe.
class AdminService final : public v1::StoreAdmin::Service {
 public:
  AdminService(LocalStore& store, const Access& access, const RpcMetrics& metrics, StreamWatch& watch,
               Drainer& drainer)
      : store_(store), access_(access), metrics_(metrics), watch_(watch), drainer_(drainer) {}

  grpc::Status Stats(grpc::ServerContext*, const v1::StatsRequest*, v1::StatsResponse*) override;
  grpc::Status InjectFault(grpc::ServerContext*, const v1::InjectFaultRequest*,
                           v1::InjectFaultResponse*) override;
  grpc::Status Drain(grpc::ServerContext*, const v1::DrainRequest*, v1::DrainResponse*) override;
  grpc::Status GetQuota(grpc::ServerContext*, const v1::GetQuotaRequest*, v1::Quota*) override;
  grpc::Status SetQuota(grpc::ServerContext*, const v1::Quota*, v1::Quota*) override;
  grpc::Status DeleteTenant(grpc::ServerContext*, const v1::DeleteTenantRequest*,
                            v1::DeleteTenantResponse*) override;
  grpc::Status Verify(grpc::ServerContext*, const v1::VerifyRequest*,
                      grpc::ServerWriter<v1::VerifyResponse>*) override;

 private:
  absl::Status DoVerify(const v1::VerifyRequest& request, StreamWatch::Stream& stream,
                        grpc::ServerWriter<v1::VerifyResponse>& writer);

  LocalStore& store_;
  const Access& access_;
  const RpcMetrics& metrics_;
  StreamWatch& watch_;
  Drainer& drainer_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace quire::store

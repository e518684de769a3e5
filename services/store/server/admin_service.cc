#include "services/store/server/admin_service.h"

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/store/wire/convert.h"

namespace quire::store {
namespace {

// Progress is told this often, not for every block.
constexpr auto kTellEvery = std::chrono::milliseconds(200);

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
  return call.Done(store_.InjectFault(request->point(), request->count(), request->parameter()));
}

grpc::Status AdminService::Drain(grpc::ServerContext* context, const v1::DrainRequest* request,
                                 v1::DrainResponse*) {
  RpcMetrics::Call call = metrics_.Start("Drain");
  if (absl::Status status = access_.CheckAdmin(*context); !status.ok()) return call.Done(status);
  const auto longest = static_cast<uint64_t>(Drainer::kLongest.count());
  if (request->deadline_ms() > longest) {
    return call.Done(absl::InvalidArgumentError(
        absl::StrCat("deadline_ms ", request->deadline_ms(), ": at most ", longest)));
  }
  return call.Done(drainer_.Drain(std::chrono::milliseconds(request->deadline_ms())));
}

grpc::Status AdminService::GetQuota(grpc::ServerContext* context, const v1::GetQuotaRequest* request,
                                    v1::Quota* response) {
  RpcMetrics::Call call = metrics_.Start("GetQuota");
  absl::StatusOr<std::string> tenant = access_.QuotaTenant(*context, request->tenant());
  if (!tenant.ok()) return call.Done(tenant.status());
  absl::StatusOr<uint64_t> bytes = store_.Quota(*tenant);
  response->set_tenant(*tenant);
  response->set_bytes(bytes.value_or(0));
  return call.Done(bytes.status());
}

grpc::Status AdminService::SetQuota(grpc::ServerContext* context, const v1::Quota* request,
                                    v1::Quota* response) {
  RpcMetrics::Call call = metrics_.Start("SetQuota");
  absl::Status status = access_.CheckAdmin(*context);
  if (status.ok()) status = store_.SetQuota(request->tenant(), request->bytes());
  if (status.ok()) *response = *request;
  return call.Done(status);
}

grpc::Status AdminService::DeleteTenant(grpc::ServerContext* context, const v1::DeleteTenantRequest* request,
                                        v1::DeleteTenantResponse* response) {
  RpcMetrics::Call call = metrics_.Start("DeleteTenant");
  if (absl::Status status = access_.CheckAdmin(*context); !status.ok()) return call.Done(status);
  absl::StatusOr<uint64_t> blocks = store_.DeleteTenant(request->tenant());
  response->set_blocks(blocks.value_or(0));
  return call.Done(blocks.status());
}

grpc::Status AdminService::Verify(grpc::ServerContext* context, const v1::VerifyRequest* request,
                                  grpc::ServerWriter<v1::VerifyResponse>* writer) {
  RpcMetrics::Call call = metrics_.Start("Verify");
  if (absl::Status status = access_.CheckAdmin(*context); !status.ok()) return call.Done(status);
  StreamWatch::Stream stream(watch_, *context);
  return call.Done(DoVerify(*request, stream, *writer));
}

absl::Status AdminService::DoVerify(const v1::VerifyRequest& request, StreamWatch::Stream& stream,
                                    grpc::ServerWriter<v1::VerifyResponse>& writer) {
  if (!v1::Tier_IsValid(request.tier())) {
    return absl::InvalidArgumentError(
        absl::StrCat("tier ", static_cast<int>(request.tier()), " is not known"));
  }
  v1::VerifyResponse response;
  auto told = std::chrono::steady_clock::now();
  bool gone = false;
  auto tell = [&](const LocalStore::VerifyProgress& progress) {
    stream.Progress();
    response.set_blocks(progress.blocks);
    response.set_bytes(progress.bytes);
    response.set_failures(progress.failures);
    response.set_unreadable(progress.unreadable);
    response.set_progress(progress.done);
    auto now = std::chrono::steady_clock::now();
    if (stream.cancelled()) gone = true;
    if (gone || now - told < kTellEvery) return !gone;
    told = now;
    gone = !writer.Write(response);
    return !gone;
  };
  absl::Status status = store_.Verify(static_cast<Tier>(request.tier()), request.bytes_per_second(), tell);
  if (gone) return stream.Broken();
  QUIRE_RETURN_IF_ERROR(status);
  response.set_progress(1);
  return writer.Write(response) ? absl::OkStatus() : stream.Broken();
}

}  // namespace quire::store

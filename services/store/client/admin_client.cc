#include "services/store/client/admin_client.h"

#include <algorithm>
#include <utility>

#include "core/base/status_macros.h"
#include "quire/v1/store_admin.grpc.pb.h"
#include "services/runtime/status.h"
#include "services/store/wire/convert.h"

namespace quire::store {

using std::chrono::milliseconds;
using std::chrono::system_clock;

struct AdminClient::Stubs {
  explicit Stubs(const std::shared_ptr<grpc::Channel>& channel) : admin(channel) {}
  v1::StoreAdmin::Stub admin;
};

AdminClient::AdminClient(std::shared_ptr<grpc::Channel> channel, milliseconds timeout)
    : timeout_(timeout), stubs_(std::make_unique<Stubs>(channel)) {}

AdminClient::~AdminClient() = default;

template <typename Response, typename Method, typename Request>
absl::StatusOr<Response> AdminClient::Ask(Method method, const Request& request, milliseconds more) {
  grpc::ClientContext context;
  context.set_deadline(system_clock::now() + timeout_ + more);
  Response response;
  QUIRE_RETURN_IF_ERROR(runtime::FromGrpc((stubs_->admin.*method)(&context, request, &response)));
  return response;
}

absl::StatusOr<StoreStats> AdminClient::Stats(ServerInfo* info) {
  QUIRE_ASSIGN_OR_RETURN(v1::StatsResponse response,
                         Ask<v1::StatsResponse>(&v1::StoreAdmin::Stub::Stats, v1::StatsRequest()));
  if (info != nullptr) *info = {response.version(), milliseconds(response.uptime_ms())};
  return FromProto(response);
}

absl::StatusOr<uint64_t> AdminClient::Quota(const std::string& tenant) {
  v1::GetQuotaRequest request;
  request.set_tenant(tenant);
  QUIRE_ASSIGN_OR_RETURN(v1::Quota quota, Ask<v1::Quota>(&v1::StoreAdmin::Stub::GetQuota, request));
  return quota.bytes();
}

absl::StatusOr<uint64_t> AdminClient::SetQuota(const std::string& tenant, uint64_t bytes) {
  v1::Quota request;
  request.set_tenant(tenant);
  request.set_bytes(bytes);
  QUIRE_ASSIGN_OR_RETURN(v1::Quota quota, Ask<v1::Quota>(&v1::StoreAdmin::Stub::SetQuota, request));
  return quota.bytes();
}

absl::Status AdminClient::Drain(milliseconds deadline) {
  v1::DrainRequest request;
  request.set_deadline_ms(static_cast<uint64_t>(std::max<int64_t>(deadline.count(), 0)));
  return Ask<v1::DrainResponse>(&v1::StoreAdmin::Stub::Drain, request, deadline).status();
}

absl::StatusOr<uint64_t> AdminClient::DeleteTenant(const std::string& tenant) {
  v1::DeleteTenantRequest request;
  request.set_tenant(tenant);
  QUIRE_ASSIGN_OR_RETURN(v1::DeleteTenantResponse response,
                         Ask<v1::DeleteTenantResponse>(&v1::StoreAdmin::Stub::DeleteTenant, request));
  return response.blocks();
}

absl::Status AdminClient::InjectFault(const std::string& point, uint32_t count, uint64_t parameter) {
  v1::InjectFaultRequest request;
  request.set_point(point);
  request.set_count(count);
  request.set_parameter(parameter);
  return Ask<v1::InjectFaultResponse>(&v1::StoreAdmin::Stub::InjectFault, request).status();
}

absl::StatusOr<VerifyProgress> AdminClient::Verify(
    Tier tier, uint64_t bytes_per_second, const std::function<bool(const VerifyProgress&)>& on_progress) {
  v1::VerifyRequest request;
  request.set_tier(static_cast<v1::Tier>(tier));
  request.set_bytes_per_second(bytes_per_second);
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<v1::VerifyResponse>> stream = stubs_->admin.Verify(&context, request);
  VerifyProgress last;
  for (v1::VerifyResponse response; stream->Read(&response);) {
    last = {response.blocks(), response.bytes(), response.failures(), response.progress()};
    if (on_progress(last)) continue;
    context.TryCancel();
    stream->Finish();
    return last;
  }
  QUIRE_RETURN_IF_ERROR(runtime::FromGrpc(stream->Finish()));
  return last;
}

}  // namespace quire::store

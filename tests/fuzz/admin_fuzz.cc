// Every request of quire.v1.StoreAdmin, to a store that holds two tenants' blocks.
#include <algorithm>
#include <map>
#include <string>

#include "quire/v1/store_admin.grpc.pb.h"
#include "services/store/server/drainer.h"
#include "tests/fuzz/chain.h"
#include "tests/fuzz/layouts.h"
#include "tests/fuzz/served.h"

namespace quire::fuzz {
namespace {

using Stub = v1::StoreAdmin::Stub;

void Store(store::LocalStore& store, const std::string& tenant) {
  static const Chain chain = MakeChain(Layouts()[0], "tq:k4v4", 2);
  store::Namespace ns{tenant, *store.RegisterLayout(chain.layout)};
  std::vector<store::BlockAnnounce> blocks;
  for (size_t i = 0; i < chain.objects.size(); ++i)
    blocks.push_back({chain.identities[i], chain.objects[i].size()});
  std::unique_ptr<store::PutSession> session = *store.BeginPut(ns, blocks, {});
  for (uint32_t i = 0; i < blocks.size(); ++i) {
    QUIRE_FUZZ_CHECK(session->Write(i, 0, chain.objects[i]).ok());
    QUIRE_FUZZ_CHECK(session->Commit(i).ok());
  }
}

class Operator {
 public:
  explicit Operator(Served& served) : served_(served), stub_(served.channel()) {
    for (const auto& [tenant, blocks] : blocks_) Store(served.store(), tenant);
  }

  void Call(const Entry& entry) {
    const Held before = served_.held();
    const bool ok = CallOnce(entry, before);
    const Held after = served_.held();
    // Two of the calls take blocks away, and say how many; no refused one does.
    const bool may_take = entry.call == 3 || entry.call == 4;
    QUIRE_FUZZ_CHECK(after == before || (may_take && ok));
    QUIRE_FUZZ_CHECK(before.blocks - after.blocks == taken_);
    taken_ = 0;
  }

 private:
  // Whether it was not refused.
  bool CallOnce(const Entry& entry, const Held& before) {
    switch (entry.call) {
      case 0:
        return Stats(Parsed<v1::StatsRequest>(entry.bytes), before);
      case 1:
        return GetQuota(Parsed<v1::GetQuotaRequest>(entry.bytes));
      case 2:
        return SetQuota(Parsed<v1::Quota>(entry.bytes));
      case 3:
        return DeleteTenant(Parsed<v1::DeleteTenantRequest>(entry.bytes));
      case 4:
        return Verify(Parsed<v1::VerifyRequest>(entry.bytes), before);
      case 5:
        return InjectFault(Parsed<v1::InjectFaultRequest>(entry.bytes));
      default:
        return Drain(Parsed<v1::DrainRequest>(entry.bytes));
    }
  }

  bool Stats(const v1::StatsRequest& request, const Held& held) {
    Answer<v1::StatsResponse> answer = Unary(stub_, &Stub::Stats, request);
    QUIRE_FUZZ_CHECK(answer.ok());  // whatever came before
    const v1::TierStats& host = answer.response().tiers(0);
    QUIRE_FUZZ_CHECK(host.blocks() == held.blocks && host.used_bytes() == held.used_bytes);
    QUIRE_FUZZ_CHECK(answer.response().checksum_failures() == held.corrupt);
    return true;
  }

  bool GetQuota(const v1::GetQuotaRequest& request) {
    Answer<v1::Quota> answer = Unary(stub_, &Stub::GetQuota, request);
    if (!answer.ok()) return false;
    QUIRE_FUZZ_CHECK(answer.response().tenant() == request.tenant());
    auto set = quotas_.find(request.tenant());
    QUIRE_FUZZ_CHECK(answer.response().bytes() == (set == quotas_.end() ? 0 : set->second));
    return true;
  }

  bool SetQuota(const v1::Quota& request) {
    Answer<v1::Quota> answer = Unary(stub_, &Stub::SetQuota, request);
    if (!answer.ok()) return false;
    quotas_[request.tenant()] = request.bytes();
    return true;
  }

  bool DeleteTenant(const v1::DeleteTenantRequest& request) {
    Answer<v1::DeleteTenantResponse> answer = Unary(stub_, &Stub::DeleteTenant, request);
    if (!answer.ok()) return false;
    taken_ = answer.response().blocks();
    auto tenant = blocks_.find(request.tenant());
    QUIRE_FUZZ_CHECK(taken_ <= (tenant == blocks_.end() ? 0 : tenant->second));
    if (tenant != blocks_.end()) tenant->second = 0;
    return true;
  }

  bool Verify(v1::VerifyRequest request, const Held& before) {
    // What is stored is read within a fraction of a second.
    if (request.bytes_per_second() > 0) request.set_bytes_per_second(request.bytes_per_second() | 1 << 20);
    Answer<v1::VerifyResponse> answer = Reads(stub_, &Stub::Verify, request, kManyMessages);
    if (!answer.ok()) return false;
    QUIRE_FUZZ_CHECK(!answer.responses.empty());
    double progress = 0;
    for (const v1::VerifyResponse& response : answer.responses) {
      QUIRE_FUZZ_CHECK(response.progress() >= progress && response.progress() <= 1);
      progress = response.progress();
    }
    const v1::VerifyResponse& last = answer.responses.back();
    QUIRE_FUZZ_CHECK(progress == 1 && last.blocks() <= before.blocks && last.failures() <= last.blocks());
    taken_ = last.failures();
    QUIRE_FUZZ_CHECK(taken_ == 0 || ever_corrupt_);
    return true;
  }

  bool InjectFault(const v1::InjectFaultRequest& request) {
    Answer<v1::InjectFaultResponse> answer = Unary(stub_, &Stub::InjectFault, request);
    bool known = false;
    for (size_t i = 0; i < store::kFaults; ++i)
      known = known || store::FaultName(static_cast<store::Fault>(i)) == request.point();
    QUIRE_FUZZ_CHECK(answer.ok() == known);
    ever_corrupt_ = ever_corrupt_ || request.point() == "corrupt_byte";
    return known;
  }

  bool Drain(v1::DrainRequest request) {
    constexpr auto kLongest = static_cast<uint64_t>(store::Drainer::kLongest.count());
    const bool too_long = request.deadline_ms() > kLongest;
    if (!too_long) request.set_deadline_ms(request.deadline_ms() % 100);
    Answer<v1::DrainResponse> answer = Unary(stub_, &Stub::Drain, request);
    QUIRE_FUZZ_CHECK(answer.ok() == !too_long);  // nothing runs that it would have to wait for
    return answer.ok();
  }

  static constexpr size_t kManyMessages = 10'000;
  Served& served_;
  v1::StoreAdmin::Stub stub_;
  std::map<std::string, uint64_t> blocks_ = {{"a", 2}, {"", 2}};  // at most
  std::map<std::string, uint64_t> quotas_;
  uint64_t taken_ = 0;  // blocks, by the call that runs
  bool ever_corrupt_ = false;
};

}  // namespace

const google::protobuf::Message* RequestOf(int call) {
  static const google::protobuf::Message* const kRequests[] = {
      &v1::StatsRequest::default_instance(),  &v1::GetQuotaRequest::default_instance(),
      &v1::Quota::default_instance(),         &v1::DeleteTenantRequest::default_instance(),
      &v1::VerifyRequest::default_instance(), &v1::InjectFaultRequest::default_instance(),
      &v1::DrainRequest::default_instance(),
  };
  return kRequests[call];
}
int Calls() { return 7; }

}  // namespace quire::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quire::fuzz;
  Served served;
  Operator admin(served);
  for (const Entry& entry : Entries({data, size}, Calls())) admin.Call(entry);
  return 0;
}

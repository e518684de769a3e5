// Who may make which call: every role and every call, tokens that are forged, withdrawn and replaced, and
// certificates.
#include <filesystem>
#include <functional>
#include <map>

#include "gmock/gmock.h"
#include "quire/v1/codec.grpc.pb.h"
#include "quire/v1/kv_store.grpc.pb.h"
#include "quire/v1/store_admin.grpc.pb.h"
#include "services/runtime/authenticator.h"
#include "services/store/client/remote_store.h"
#include "services/store/wire/convert.h"
#include "services/store/wire/metadata.h"
#include "tests/services/runtime/test_certificates.h"
#include "tests/services/store/backends.h"
#include "tests/services/store/sample_chain.h"

namespace quire::store {
namespace {

using grpc::StatusCode;
using runtime::TemporaryFolder;
using runtime::TestAuthority;

std::string Line(const std::string& name, const std::string& role, const std::string& tenant,
                 const std::string& token) {
  std::string line = R"({"name": ")" + name + R"(", "role": ")" + role + "\"";
  if (!tenant.empty()) line += R"(, "tenant": ")" + tenant + "\"";
  return line + R"(, "token_sha256": ")" + Sha256().Update(token).Finish().Hex() + "\"}\n";
}
std::string EveryRole() {
  return Line("alice", "client", "a", "token-a") + Line("bob", "client", "b", "token-b") +
         Line("worker", "delegate", "", "token-d") + Line("operator", "admin", "", "token-o");
}

// One context for one call.
struct CallAs {
  explicit CallAs(const std::string& token) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
  }
  grpc::ClientContext context;
};

class AccessTest : public testing::Test {
 protected:
  AccessTest() : chain_(SampleLayout(), 2) {
    Start(*runtime::Authenticator::Open(folder_.Write("ids", EveryRole()), std::chrono::milliseconds(0)));
  }
  void Start(std::shared_ptr<runtime::Authenticator> authenticator) {
    StoreServicesOptions options;
    options.authenticator = std::move(authenticator);
    LocalStoreOptions store = SmallStore();
    store.enable_faults = true;
    served_ = std::make_unique<ServedStore>(store, options);
    auto channel = served_->NewChannel();
    kv_ = v1::KvStore::NewStub(channel);
    codec_ = v1::Codec::NewStub(channel);
    admin_ = v1::StoreAdmin::NewStub(channel);
    ASSERT_TRUE(PutChain(served_->engine(), chain_, "a").ok());
  }
  v1::Namespace Named(const std::string& tenant) const {
    v1::Namespace ns;
    ns.set_tenant(tenant);
    ns.set_fingerprint(std::string(chain_.fingerprint.AsString()));
    return ns;
  }
  StatusCode Lookup(const std::string& token, const std::string& tenant, uint32_t* prefix = nullptr) {
    CallAs as(token);
    v1::LookupRequest request;
    *request.mutable_namespace_() = Named(tenant);
    for (const Digest& key : chain_.keys()) request.add_keys(std::string(key.AsString()));
    v1::LookupResponse response;
    StatusCode code = kv_->Lookup(&as.context, request, &response).error_code();
    if (prefix != nullptr) *prefix = response.prefix_blocks();
    return code;
  }
  template <typename Request, typename Response, typename Method>
  StatusCode Keys(Method method, const std::string& token, const std::string& tenant) {
    CallAs as(token);
    Request request;
    *request.mutable_namespace_() = Named(tenant);
    request.add_keys(std::string(chain_.identities[1].key.AsString()));
    Response response;
    return ((*kv_).*method)(&as.context, request, &response).error_code();
  }
  StatusCode Get(const std::string& token, const std::string& tenant) {
    CallAs as(token);
    v1::GetRequest request;
    *request.mutable_namespace_() = Named(tenant);
    ToProto(chain_.identities[0], 0, request.add_blocks());
    auto stream = kv_->Get(&as.context, request);
    v1::GetResponse response;
    while (stream->Read(&response)) {
    }
    return stream->Finish().error_code();
  }
  StatusCode Put(const std::string& token, const std::string& tenant) {
    CallAs as(token);
    auto stream = kv_->Put(&as.context);
    v1::PutRequest request;
    *request.mutable_announce()->mutable_namespace_() = Named(tenant);
    ToProto(chain_.identities[0], chain_.objects[0].size(), request.mutable_announce()->add_blocks());
    stream->Write(request);
    stream->WritesDone();
    v1::PutResponse response;
    while (stream->Read(&response)) {
    }
    return stream->Finish().error_code();
  }
  StatusCode Register(const std::string& token) {
    CallAs as(token);
    v1::RegisterLayoutRequest request;
    ToProto(chain_.layout, request.mutable_layout());
    v1::RegisterLayoutResponse response;
    return kv_->RegisterLayout(&as.context, request, &response).error_code();
  }
  template <typename Start, typename Open>
  StatusCode CodecStream(const std::string& token, Open open) {
    CallAs as(token);
    auto stream = open(&as.context);
    Start request;
    ToProto(chain_.layout, request.mutable_start()->mutable_layout());
    request.mutable_start()->set_dtype(v1::DType::BF16);
    if constexpr (std::is_same_v<Start, v1::EncodeRequest>) request.mutable_start()->set_codec("tq:k4v4");
    stream->Write(request);
    stream->WritesDone();
    v1::CodecData data;
    while (stream->Read(&data)) {
    }
    return stream->Finish().error_code();
  }
  StatusCode Encode(const std::string& token) {
    return CodecStream<v1::EncodeRequest>(token, [&](auto* context) { return codec_->Encode(context); });
  }
  StatusCode Decode(const std::string& token) {
    return CodecStream<v1::DecodeRequest>(token, [&](auto* context) { return codec_->Decode(context); });
  }
  StatusCode Describe(const std::string& token) {
    CallAs as(token);
    v1::DescribeRequest request;
    ToProto(chain_.layout, request.mutable_layout());
    request.set_codec("tq:k4v4");
    v1::DescribeResponse response;
    return codec_->Describe(&as.context, request, &response).error_code();
  }
  StatusCode Stats(const std::string& token) {
    CallAs as(token);
    v1::StatsResponse response;
    return admin_->Stats(&as.context, {}, &response).error_code();
  }
  StatusCode InjectFault(const std::string& token) {
    CallAs as(token);
    v1::InjectFaultRequest request;
    request.set_point("corrupt_byte");
    v1::InjectFaultResponse response;
    return admin_->InjectFault(&as.context, request, &response).error_code();
  }
  StatusCode Watch(const std::string& token, const std::string& tenant) {
    CallAs as(token);
    v1::WatchRequest request;
    request.mutable_namespace_()->set_tenant(tenant);
    auto stream = kv_->Watch(&as.context, request);
    stream->WaitForInitialMetadata();
    if (as.context.GetServerInitialMetadata().contains(kWatchBegun)) {
      as.context.TryCancel();
      stream->Finish();
      return StatusCode::OK;
    }
    return stream->Finish().error_code();
  }
  StatusCode AttachArena(const std::string& token) {
    CallAs as(token);
    v1::AttachArenaRequest request;
    request.set_bytes(4096);
    auto stream = kv_->AttachArena(&as.context, request);
    v1::AttachArenaResponse response;
    if (!stream->Read(&response)) return stream->Finish().error_code();
    as.context.TryCancel();
    stream->Finish();
    return StatusCode::OK;
  }
  template <typename Request, typename Response, typename Method>
  StatusCode Admin(Method method, const std::string& token) {
    CallAs as(token);
    Response response;
    return ((*admin_).*method)(&as.context, Request(), &response).error_code();
  }
  StatusCode Verify(const std::string& token) {
    CallAs as(token);
    auto stream = admin_->Verify(&as.context, {});
    v1::VerifyResponse response;
    while (stream->Read(&response)) {
    }
    return stream->Finish().error_code();
  }
  StatusCode GetQuota(const std::string& token, const std::string& tenant, v1::Quota* quota) {
    CallAs as(token);
    v1::GetQuotaRequest request;
    request.set_tenant(tenant);
    return admin_->GetQuota(&as.context, request, quota).error_code();
  }
  // The calls with a namespace, by name.
  std::map<std::string, std::function<StatusCode(const std::string&, const std::string&)>> TenantCalls() {
    using Stub = v1::KvStore::Stub;
    return {
        {"Lookup", [this](auto& token, auto& tenant) { return Lookup(token, tenant); }},
        {"Get", [this](auto& token, auto& tenant) { return Get(token, tenant); }},
        {"Put", [this](auto& token, auto& tenant) { return Put(token, tenant); }},
        {"Watch", [this](auto& token, auto& tenant) { return Watch(token, tenant); }},
        {"Touch",
         [this](auto& token, auto& tenant) {
           return Keys<v1::TouchRequest, v1::TouchResponse>(&Stub::Touch, token, tenant);
         }},
        {"Pin",
         [this](auto& token, auto& tenant) {
           return Keys<v1::PinRequest, v1::PinResponse>(&Stub::Pin, token, tenant);
         }},
        {"Unpin",
         [this](auto& token, auto& tenant) {
           return Keys<v1::UnpinRequest, v1::UnpinResponse>(&Stub::Unpin, token, tenant);
         }},
        {"Prefetch",
         [this](auto& token, auto& tenant) {
           return Keys<v1::PrefetchRequest, v1::PrefetchResponse>(&Stub::Prefetch, token, tenant);
         }},
        {"Delete",
         [this](auto& token, auto& tenant) {
           return Keys<v1::DeleteRequest, v1::DeleteResponse>(&Stub::Delete, token, tenant);
         }},
    };
  }

  TemporaryFolder folder_;
  SampleChain chain_;
  std::unique_ptr<ServedStore> served_;
  std::unique_ptr<v1::KvStore::Stub> kv_;
  std::unique_ptr<v1::Codec::Stub> codec_;
  std::unique_ptr<v1::StoreAdmin::Stub> admin_;
};

TEST_F(AccessTest, EveryRoleOnEveryTenantCall) {
  for (const auto& [name, call] : TenantCalls()) {
    SCOPED_TRACE(name);
    EXPECT_EQ(call("token-a", "a"), StatusCode::OK);
    EXPECT_EQ(call("token-a", ""), StatusCode::OK);
    EXPECT_EQ(call("token-a", "b"), StatusCode::PERMISSION_DENIED);
    EXPECT_EQ(call("token-d", "a"), StatusCode::OK);
    EXPECT_EQ(call("token-d", "nobody yet"), StatusCode::OK);
    EXPECT_EQ(call("token-d", ""), StatusCode::PERMISSION_DENIED);
    EXPECT_EQ(call("token-o", "a"), StatusCode::PERMISSION_DENIED);
    EXPECT_EQ(call("token-o", ""), StatusCode::PERMISSION_DENIED);
    EXPECT_EQ(call("", "a"), StatusCode::UNAUTHENTICATED);
    EXPECT_EQ(call("forged", "a"), StatusCode::UNAUTHENTICATED);
  }
}

TEST_F(AccessTest, EveryRoleOnEveryOtherCall) {
  struct Expected {
    StatusCode client, delegate, admin;
  };
  constexpr StatusCode kOk = StatusCode::OK, kNo = StatusCode::PERMISSION_DENIED;
  const std::vector<std::tuple<std::string, std::function<StatusCode(const std::string&)>, Expected>> calls =
      {
          {"RegisterLayout", [this](auto& token) { return Register(token); }, {kOk, kOk, kNo}},
          {"AttachArena", [this](auto& token) { return AttachArena(token); }, {kOk, kOk, kNo}},
          {"Encode", [this](auto& token) { return Encode(token); }, {kOk, kOk, kOk}},
          {"Decode", [this](auto& token) { return Decode(token); }, {kOk, kOk, kOk}},
          {"Describe", [this](auto& token) { return Describe(token); }, {kOk, kOk, kOk}},
          {"Stats", [this](auto& token) { return Stats(token); }, {kNo, kNo, kOk}},
          {"InjectFault", [this](auto& token) { return InjectFault(token); }, {kNo, kNo, kOk}},
          {"SetQuota",
           [this](auto& token) {
             return Admin<v1::Quota, v1::Quota>(&v1::StoreAdmin::Stub::SetQuota, token);
           },
           {kNo, kNo, kOk}},
          {"DeleteTenant",
           [this](auto& token) {
             return Admin<v1::DeleteTenantRequest, v1::DeleteTenantResponse>(
                 &v1::StoreAdmin::Stub::DeleteTenant, token);
           },
           {kNo, kNo, kOk}},
          {"Verify", [this](auto& token) { return Verify(token); }, {kNo, kNo, kOk}},
          {"Drain",  // last: what comes after it is refused
           [this](auto& token) {
             return Admin<v1::DrainRequest, v1::DrainResponse>(&v1::StoreAdmin::Stub::Drain, token);
           },
           {kNo, kNo, kOk}},
      };
  for (const auto& [name, call, expected] : calls) {
    SCOPED_TRACE(name);
    EXPECT_EQ(call("token-a"), expected.client);
    EXPECT_EQ(call("token-d"), expected.delegate);
    EXPECT_EQ(call("token-o"), expected.admin);
    EXPECT_EQ(call(""), StatusCode::UNAUTHENTICATED);
    EXPECT_EQ(call("token-A"), StatusCode::UNAUTHENTICATED);
  }
}

TEST_F(AccessTest, QuotasAreSeenByThoseTheyAreOf) {
  ASSERT_TRUE(served_->engine().SetQuota("a", 12345).ok());
  v1::Quota quota;
  EXPECT_EQ(GetQuota("token-a", "", &quota), StatusCode::OK);
  EXPECT_EQ(quota.tenant(), "a");
  EXPECT_EQ(quota.bytes(), 12345u);
  EXPECT_EQ(GetQuota("token-a", "b", &quota), StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(GetQuota("token-d", "a", &quota), StatusCode::OK);
  EXPECT_EQ(GetQuota("token-d", "", &quota), StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(GetQuota("token-o", "a", &quota), StatusCode::OK);
  EXPECT_EQ(quota.bytes(), 12345u);
  EXPECT_EQ(GetQuota("", "a", &quota), StatusCode::UNAUTHENTICATED);
}

TEST_F(AccessTest, AClientSeesItsOwnBlocksWhateverItCallsItself) {
  uint32_t prefix = 0;
  EXPECT_EQ(Lookup("token-a", "", &prefix), StatusCode::OK);
  EXPECT_EQ(prefix, 2u);
  EXPECT_EQ(Lookup("token-b", "", &prefix), StatusCode::OK);
  EXPECT_EQ(prefix, 0u);
  EXPECT_EQ(Lookup("token-d", "a", &prefix), StatusCode::OK);
  EXPECT_EQ(prefix, 2u);
}

TEST_F(AccessTest, OddAuthorizationsAreRefused) {
  auto with = [&](const std::vector<std::string>& values) {
    grpc::ClientContext context;
    for (const std::string& value : values) context.AddMetadata("authorization", value);
    v1::StatsResponse response;
    return admin_->Stats(&context, {}, &response).error_code();
  };
  EXPECT_EQ(with({"Bearer token-o"}), StatusCode::OK);
  EXPECT_EQ(with({"bearer token-o"}), StatusCode::OK);
  for (const std::string odd :
       {"token-o", "Basic token-o", "Bearer", "Bearer ", "Bearer  token-o", "Bearer token-o "}) {
    EXPECT_EQ(with({odd}), StatusCode::UNAUTHENTICATED) << odd;
  }
  EXPECT_EQ(with({"Bearer token-o", "Bearer token-o"}), StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(with({"Bearer " + Sha256().Update("token-o").Finish().Hex()}), StatusCode::UNAUTHENTICATED);
}

TEST_F(AccessTest, TheFileIsReadAgainAndABadOneIsNot) {
  folder_.Write("ids", EveryRole() + Line("carol", "client", "c", "token-c"));
  EXPECT_EQ(Lookup("token-c", "c"), StatusCode::OK);
  folder_.Write("ids", Line("carol", "client", "c", "token-c2"));  // a new token; the others are gone
  EXPECT_EQ(Lookup("token-c2", "c"), StatusCode::OK);
  EXPECT_EQ(Lookup("token-c", "c"), StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(Lookup("token-a", "a"), StatusCode::UNAUTHENTICATED);
  folder_.Write("ids", Line("carol", "client", "c", "token-c3") + "nonsense");
  EXPECT_EQ(Lookup("token-c2", "c"), StatusCode::OK);
  EXPECT_EQ(Lookup("token-c3", "c"), StatusCode::UNAUTHENTICATED);
  std::filesystem::remove(folder_ / "ids");
  EXPECT_EQ(Lookup("token-c2", "c"), StatusCode::OK);
  folder_.Write("ids", Line("carol", "client", "c", "token-c4"));
  EXPECT_EQ(Lookup("token-c4", "c"), StatusCode::OK);
}

TEST_F(AccessTest, WithoutIdentitiesAnyoneIsAnyone) {
  Start(nullptr);
  for (const auto& [name, call] : TenantCalls()) {
    SCOPED_TRACE(name);
    EXPECT_EQ(call("", "a"), StatusCode::OK);
    EXPECT_EQ(call("", ""), StatusCode::OK);
    EXPECT_EQ(call("any", "b"), StatusCode::OK);
  }
  EXPECT_EQ(Stats(""), StatusCode::OK);
}

TEST_F(AccessTest, TheClientShowsItsToken) {
  runtime::ChannelOptions options;
  options.token_file = folder_.Write("token", "token-a\n");
  RemoteStore store(*runtime::NewChannel(served_->address(), options));
  ASSERT_TRUE(store.RegisterLayout(chain_.layout).ok());
  EXPECT_EQ(StoredPrefix(store, chain_), 2u);
  EXPECT_EQ(GetAll(store, chain_.ns(), chain_.identities).objects, chain_.objects);
  EXPECT_EQ(store.Lookup(chain_.ns("b"), chain_.keys(), {}).status().code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(store.Stats().status().code(), absl::StatusCode::kPermissionDenied);
}

// Over mutual TLS, by the names in the certificate.
class CertificateTest : public testing::Test {
 protected:
  CertificateTest() : authority_(folder_), chain_(SampleLayout(), 1) {
    authority_.Issue("server", "store", "DNS:localhost,IP:127.0.0.1");
    authority_.Issue("alternative", "ignored.example", "DNS:a.example,DNS:more.example");
    authority_.Issue("common", "a.example", "");
    authority_.Issue("hidden", "a.example", "DNS:other.example");
    authority_.Issue("uri", "x", "URI:spiffe://quire/worker");
    folder_.Write("ids", R"({"name": "alice", "role": "client", "tenant": "a", "certificate": "a.example"})"
                         "\n"
                         R"({"name": "worker", "role": "delegate", "certificate": "spiffe://quire/worker"})"
                         "\n" +
                             Line("operator", "admin", "", "token-o"));
    StoreServicesOptions options;
    options.authenticator = *runtime::Authenticator::Open(folder_ / "ids");
    engine_ = *LocalStore::Create(SmallStore());
    registry_ = runtime::NewRegistry();
    services_ = std::make_unique<StoreServices>(engine_, *registry_, options);
    runtime::ServerOptions server;
    server.tls = {authority_.certificate("server"), authority_.key("server"), authority_.ca()};
    server_ = *runtime::Server::Start(server, services_->services());
  }
  ~CertificateTest() override { server_->Shutdown(std::chrono::milliseconds(0)); }

  std::unique_ptr<RemoteStore> As(const std::string& certificate, const std::string& token_file = "") {
    runtime::ChannelOptions options{authority_.ca(), authority_.certificate(certificate),
                                    authority_.key(certificate), token_file};
    return std::make_unique<RemoteStore>(
        *runtime::NewChannel("localhost:" + std::to_string(server_->port()), options));
  }

  TemporaryFolder folder_;
  TestAuthority authority_;
  SampleChain chain_;
  std::shared_ptr<LocalStore> engine_;
  std::shared_ptr<prometheus::Registry> registry_;
  std::unique_ptr<StoreServices> services_;
  std::unique_ptr<runtime::Server> server_;
};

TEST_F(CertificateTest, SaysWhoOneIs) {
  using absl::StatusCode;
  for (const char* known : {"alternative", "common"}) {
    auto store = As(known);
    EXPECT_TRUE(PutChain(*store, chain_).ok()) << known;
    EXPECT_EQ(store->Lookup(chain_.ns("b"), chain_.keys(), {}).status().code(),
              StatusCode::kPermissionDenied);
  }
  EXPECT_EQ(StoredPrefix(*engine_, chain_, "a"), 1u);
  EXPECT_EQ(As("hidden")->RegisterLayout(chain_.layout).status().code(), StatusCode::kUnauthenticated);
  auto worker = As("uri");
  ASSERT_TRUE(worker->RegisterLayout(chain_.layout).ok());
  EXPECT_EQ(StoredPrefix(*worker, chain_, "a"), 1u);
  EXPECT_EQ(worker->Lookup(chain_.ns(), chain_.keys(), {}).status().code(), StatusCode::kPermissionDenied);
}

TEST_F(CertificateTest, ATokenGoesFirst) {
  EXPECT_TRUE(As("common", folder_.Write("token", "token-o"))->Stats().ok());
  EXPECT_EQ(As("common", folder_.Write("forged", "token-x"))->Stats().status().code(),
            absl::StatusCode::kUnauthenticated);
}

}  // namespace
}  // namespace quire::store

#include "services/runtime/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <filesystem>
#include <mutex>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "services/runtime/address.h"
#include "services/runtime/bearer_token.h"

namespace quire::runtime {
namespace {

constexpr unsigned kCertificateRefreshSeconds = 10;
constexpr int kKeepaliveMs = 30'000;

absl::Status CheckReadable(const std::string& what, const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_regular_file(path, error)) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat(what, " file ", path, " is not there"));
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ServerCredentials(const TlsOptions& tls) {
  if (tls.certificate.empty() && tls.key.empty() && tls.client_ca.empty())
    return grpc::InsecureServerCredentials();
  if (tls.certificate.empty() || tls.key.empty()) {
    return absl::InvalidArgumentError("TLS needs both a certificate and a key file");
  }
  QUIRE_RETURN_IF_ERROR(CheckReadable("TLS certificate", tls.certificate));
  QUIRE_RETURN_IF_ERROR(CheckReadable("TLS key", tls.key));
  if (!tls.client_ca.empty()) QUIRE_RETURN_IF_ERROR(CheckReadable("TLS client CA", tls.client_ca));
  auto provider = std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      tls.key, tls.certificate, tls.client_ca, kCertificateRefreshSeconds);
  grpc::experimental::TlsServerCredentialsOptions options(provider);
  options.watch_identity_key_cert_pairs();
  if (!tls.client_ca.empty()) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

// Reflection and health are plugins of the process, to be set before the first server is built.
void RegisterPlugins() {
  static std::once_flag once;
  std::call_once(once, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options,
                                                      const std::vector<grpc::Service*>& services) {
  RegisterPlugins();
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<grpc::ServerCredentials> credentials,
                         ServerCredentials(options.tls));

  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(options.listen, credentials, &port);
  for (grpc::Service* service : services) builder.RegisterService(service);
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT,
                             0);  // a port in use is an error, not half of the traffic
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kKeepaliveMs / 2);
  // A call of the sync API holds a thread; without one the server itself answers RESOURCE_EXHAUSTED. Two
  // threads poll.
  grpc::ResourceQuota quota("quire");
  quota.SetMaxThreads(options.max_streams + 2);
  builder.SetResourceQuota(quota);
  builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::MAX_POLLERS, 2);

  auto server = std::unique_ptr<Server>(new Server());
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || (port == 0 && !absl::StartsWith(options.listen, "unix"))) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", options.listen, ": the address is in use or not ours"));
  }
  server->port_ = port;
  server->address_ = absl::StartsWith(options.listen, "unix")
                         ? options.listen
                         : absl::StrCat(options.listen.substr(0, options.listen.rfind(':')), ":", port);
  server->SetServing(false);
  return server;
}

Server::~Server() { Shutdown(std::chrono::milliseconds(0)); }

void Server::SetServing(bool serving) { server_->GetHealthCheckService()->SetServingStatus(serving); }

void Server::Shutdown(std::chrono::milliseconds deadline) {
  if (server_ == nullptr) return;
  server_->GetHealthCheckService()->Shutdown();
  server_->Shutdown(std::chrono::system_clock::now() + deadline);
  server_->Wait();
}

std::shared_ptr<grpc::Channel> Server::InProcessChannel() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(4 << 20);
  return server_->InProcessChannel(arguments);
}

namespace {

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ChannelCredentials(const ChannelOptions& options) {
  if (options.ca.empty() && options.certificate.empty() && options.key.empty())
    return grpc::InsecureChannelCredentials();
  for (const std::string* path : {&options.ca, &options.certificate, &options.key}) {
    if (!path->empty()) QUIRE_RETURN_IF_ERROR(CheckReadable("TLS", *path));
  }
  if (options.certificate.empty() != options.key.empty()) {
    return absl::InvalidArgumentError("a client certificate needs both a certificate and a key file");
  }
  grpc::experimental::TlsChannelCredentialsOptions tls;
  tls.set_certificate_provider(std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      options.key, options.certificate, options.ca, kCertificateRefreshSeconds));
  if (!options.ca.empty()) tls.watch_root_certs();
  if (!options.certificate.empty()) tls.watch_identity_key_cert_pairs();
  return grpc::experimental::TlsCredentials(tls);
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> NewChannel(const std::string& address,
                                                          const ChannelOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(4 << 20);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  // Channels to equal addresses would otherwise share one connection, and with it one flow-control window.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<grpc::ChannelCredentials> credentials, ChannelCredentials(options));
  if (options.token_file.empty()) return grpc::CreateCustomChannel(address, credentials, arguments);

  const bool tls = !options.ca.empty() || !options.certificate.empty();
  if (!tls) {
    if (!IsLocalAddress(address)) {
      return absl::InvalidArgumentError(
          absl::StrCat("a token is sent over TLS, or to this machine only: ", address, " is neither"));
    }
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);  // that would not be this machine
  }
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<BearerToken> token, BearerToken::FromFile(options.token_file));
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(NewBearerInterceptor(std::move(token)));
  return grpc::experimental::CreateCustomChannelWithInterceptors(address, credentials, arguments,
                                                                 std::move(interceptors));
}

}  // namespace quire::runtime

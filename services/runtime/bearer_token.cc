#include "services/runtime/bearer_token.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace quire::runtime {
namespace {

constexpr size_t kMaxTokenBytes = 4096;
constexpr auto kRefresh = std::chrono::seconds(1);
constexpr const char* kWhite = " \t\r\n";

namespace rpc = grpc::experimental;

class Interceptor : public rpc::Interceptor {
 public:
  explicit Interceptor(std::shared_ptr<BearerToken> token) : token_(std::move(token)) {}
  void Intercept(rpc::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(rpc::InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      methods->GetSendInitialMetadata()->emplace("authorization", token_->Header());
    }
    methods->Proceed();
  }

 private:
  std::shared_ptr<BearerToken> token_;
};

class Factory : public rpc::ClientInterceptorFactoryInterface {
 public:
  explicit Factory(std::shared_ptr<BearerToken> token) : token_(std::move(token)) {}
  rpc::Interceptor* CreateClientInterceptor(rpc::ClientRpcInfo*) override { return new Interceptor(token_); }

 private:
  std::shared_ptr<BearerToken> token_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<BearerToken>> BearerToken::FromFile(const std::string& path) {
  auto token = std::shared_ptr<BearerToken>(new BearerToken(path));
  std::lock_guard lock(token->mu_);
  QUIRE_RETURN_IF_ERROR(token->Read());
  return token;
}

absl::Status BearerToken::Read() {
  next_look_ = std::chrono::steady_clock::now() + kRefresh;
  QUIRE_ASSIGN_OR_RETURN(std::string text, file_.Read(kMaxTokenBytes + 64));
  text.erase(0, std::min(text.find_first_not_of(kWhite), text.size()));
  text.resize(text.find_last_not_of(kWhite) + 1);
  bool printable = std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
  if (text.empty() || text.size() > kMaxTokenBytes || !printable) {
    return absl::InvalidArgumentError(absl::StrCat("token file ", file_.path(), " holds no token: 1…",
                                                   kMaxTokenBytes, " printable characters without spaces"));
  }
  header_ = absl::StrCat("Bearer ", text);
  return absl::OkStatus();
}

std::string BearerToken::Header() {
  std::lock_guard lock(mu_);
  if (std::chrono::steady_clock::now() >= next_look_ && file_.Changed()) {
    if (absl::Status status = Read(); !status.ok())
      spdlog::warn("the token read before stays in use: {}", std::string(status.message()));
  }
  return header_;
}

std::unique_ptr<rpc::ClientInterceptorFactoryInterface> NewBearerInterceptor(
    std::shared_ptr<BearerToken> token) {
  return std::make_unique<Factory>(std::move(token));
}

}  // namespace quire::runtime

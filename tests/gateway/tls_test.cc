// TLS in front of the gateway: a self-signed certificate made here, OpenSSL's own client.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <filesystem>

#include "tests/gateway/fixture.h"

namespace quire::gateway::test {
namespace {

namespace fs = std::filesystem;

void WriteCertificate(const std::string& certificate, const std::string& key) {
  EVP_PKEY* pair = EVP_EC_gen("P-256");
  X509* x509 = X509_new();
  X509_set_version(x509, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(x509), 1);
  X509_gmtime_adj(X509_getm_notBefore(x509), -60);
  X509_gmtime_adj(X509_getm_notAfter(x509), 3600);
  X509_set_pubkey(x509, pair);
  X509_NAME* name = X509_get_subject_name(x509);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("localhost"),
                             -1, -1, 0);
  X509_set_issuer_name(x509, name);
  X509_sign(x509, pair, EVP_sha256());
  FILE* file = std::fopen(certificate.c_str(), "w");
  PEM_write_X509(file, x509);
  std::fclose(file);
  file = std::fopen(key.c_str(), "w");
  PEM_write_PrivateKey(file, pair, nullptr, nullptr, 0, nullptr, nullptr);
  std::fclose(file);
  X509_free(x509);
  EVP_PKEY_free(pair);
}

// Sends a request over TLS and returns all that comes until the server closes; empty if the handshake fails.
std::string Exchange(int port, const std::string& request, const std::string& certificate = "",
                     const std::string& key = "") {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  timeval limit{30, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string out;
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  if (!certificate.empty()) {
    SSL_CTX_use_certificate_file(context, certificate.c_str(), SSL_FILETYPE_PEM);
    SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM);
  }
  SSL* ssl = SSL_new(context);
  if (connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0 && SSL_set_fd(ssl, fd) == 1 &&
      SSL_connect(ssl) == 1 && SSL_write(ssl, request.data(), static_cast<int>(request.size())) > 0) {
    char bytes[4096];
    for (int n = SSL_read(ssl, bytes, sizeof bytes); n > 0; n = SSL_read(ssl, bytes, sizeof bytes))
      out.append(bytes, static_cast<size_t>(n));
  }
  SSL_free(ssl);
  SSL_CTX_free(context);
  close(fd);
  return out;
}

class TlsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "quire-tls-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    WriteCertificate(Path("cert"), Path("key"));
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string Path(const std::string& name) const { return (folder_ / name).string(); }
  std::unique_ptr<Gateway> Start(const std::string& client_ca = "") {
    GatewayOptions options;
    options.listen = "127.0.0.1:0";
    options.workers = {worker_.address()};
    options.tls_certificate = Path("cert");
    options.tls_key = Path("key");
    options.tls_client_ca = client_ca;
    auto gateway = Gateway::Start(std::move(options));
    EXPECT_TRUE(gateway.ok()) << gateway.status();
    return gateway.ok() ? *std::move(gateway) : nullptr;
  }

  fs::path folder_;
  StubWorker worker_;
};

const std::string kModels = RequestText("GET", "/metrics", "", "Connection: close\r\n");

TEST_F(TlsTest, ServesRequestsAndStreams) {
  auto gateway = Start();
  ASSERT_TRUE(gateway);
  while (!gateway->ready()) ASSERT_FALSE(Exchange(gateway->port(), kModels).empty());
  EXPECT_NE(Exchange(gateway->port(), kModels).find("quire_gateway_requests_total"), std::string::npos);
  const json body = {
      {"model", "stub"}, {"stream", true}, {"messages", {{{"role", "user"}, {"content", "x"}}}}};
  const std::string answer =
      Exchange(gateway->port(), RequestText("POST", kChatPath, body.dump(), "Connection: close\r\n"));
  EXPECT_NE(answer.find("HTTP/1.1 200 OK"), std::string::npos);
  EXPECT_NE(answer.find(R"("content":" wor")"), std::string::npos);
  EXPECT_NE(answer.find("data: [DONE]"), std::string::npos);
}

TEST_F(TlsTest, PlainRequestsGetNoAnswer) {
  auto gateway = Start();
  ASSERT_TRUE(gateway);
  EXPECT_EQ(Get(gateway->port(), "/health").status, 0);
}

TEST_F(TlsTest, AsksForAClientCertificate) {
  auto gateway = Start(Path("cert"));
  ASSERT_TRUE(gateway);
  EXPECT_EQ(Exchange(gateway->port(), kModels), "");
  EXPECT_NE(Exchange(gateway->port(), kModels, Path("cert"), Path("key")), "");
}

TEST_F(TlsTest, BadFilesAreNamed) {
  GatewayOptions options;
  options.listen = "127.0.0.1:0";
  options.workers = {worker_.address()};
  options.tls_certificate = Path("cert");
  EXPECT_FALSE(Gateway::Start(options).ok());
  options.tls_key = Path("nothing");
  auto gateway = Gateway::Start(options);
  ASSERT_FALSE(gateway.ok());
  EXPECT_NE(std::string(gateway.status().message()).find(Path("nothing")), std::string::npos);
}

}  // namespace
}  // namespace quire::gateway::test

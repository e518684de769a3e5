// The identities file, addresses, and a client's token.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/runtime/address.h"
#include "services/runtime/authenticator.h"
#include "services/runtime/bearer_token.h"
#include "services/runtime/identities.h"
#include "services/runtime/server.h"
#include "tests/services/runtime/test_certificates.h"

namespace quire::runtime {
namespace {

using absl::StatusCode;
using testing::HasSubstr;
using testing::Not;

std::string HashOf(const std::string& token) { return Sha256().Update(token).Finish().Hex(); }

TEST(Identities, AreFoundByTokenAndByCertificate) {
  absl::StatusOr<Identities> identities = Identities::Parse(
      "# who may call\n\n"
      R"({"name": "a", "role": "client", "tenant": "t", "token_sha256": ")" +
      HashOf("alpha") +
      "\"}\r\n"
      R"(  {"name": "w", "role": "delegate", "certificate": ["w.example", "v.example"]})"
      "\n"
      R"({"name": "op", "role": "admin", "token_sha256": [")" +
      HashOf("one") + "\", \"" + HashOf("two") + "\"]}");
  ASSERT_TRUE(identities.ok()) << identities.status();
  EXPECT_EQ(identities->size(), 3u);
  EXPECT_EQ(identities->ByToken("alpha")->tenant, "t");
  EXPECT_EQ(identities->ByToken("alpha")->role, Role::kClient);
  EXPECT_EQ(identities->ByToken("one")->name, "op");
  EXPECT_EQ(identities->ByToken("two")->role, Role::kAdmin);
  for (std::string wrong : {"", "alph", "alphaa", "Alpha"}) EXPECT_EQ(identities->ByToken(wrong), nullptr);
  EXPECT_EQ(identities->ByToken(HashOf("alpha")), nullptr);  // the hash is no token
  EXPECT_EQ(identities->ByToken(std::string(1 << 20, 'x')), nullptr);

  std::vector<std::string> names = {"other.example", "w.example", "v.example"};
  EXPECT_EQ(identities->ByCertificate(names, "")->name, "w");
  EXPECT_EQ(identities->ByCertificate({}, "v.example")->name, "w");
  names = {"other.example"};  // the common name counts only where there is no other
  EXPECT_EQ(identities->ByCertificate(names, "w.example"), nullptr);
  EXPECT_EQ(identities->ByCertificate({}, ""), nullptr);
}

TEST(Identities, ACertificateOfTwoIdentitiesIsNobodys) {
  Identities identities = *Identities::Parse(R"({"name": "a", "role": "delegate", "certificate": "a"})"
                                             "\n"
                                             R"({"name": "b", "role": "delegate", "certificate": "b"})");
  std::vector<std::string> both = {"a", "b"};
  EXPECT_EQ(identities.ByCertificate(both, ""), nullptr);
}

TEST(Identities, AreRefusedByLineAndField) {
  auto refuse = [](const std::string& line, const std::string& text) {
    absl::Status status = Identities::Parse("# first\n" + line).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << line;
    EXPECT_THAT(std::string(status.message()), HasSubstr("line 2: " + text)) << line;
  };
  const std::string token = R"("token_sha256": ")" + HashOf("x") + "\"";
  refuse("secret", "is no JSON object");
  refuse("[]", "is no JSON object");
  refuse(R"({"name": "a", "role": "admin", "token": "secret"})", "a field is none of");
  refuse(R"({"role": "admin", )" + token + "}", "name is missing");
  refuse(R"({"name": "", "role": "admin", )" + token + "}", "name has 0 bytes");
  refuse(R"({"name": 1, "role": "admin", )" + token + "}", "name is no string");
  refuse(R"({"name": ")" + std::string(257, 'n') + R"(", "role": "admin", )" + token + "}",
         "name has 257 bytes");
  refuse(R"({"name": "a", "role": "root", )" + token + "}", "role is none of");
  refuse(R"({"name": "a", "role": "client", )" + token + "}", "tenant is missing");
  refuse(R"({"name": "a", "role": "delegate", "tenant": "t", )" + token + "}", "tenant is for clients only");
  refuse(R"({"name": "a", "role": "admin"})", "neither token_sha256 nor certificate");
  refuse(R"({"name": "a", "role": "admin", "token_sha256": "abc"})", "token_sha256 is not 64 hex digits");
  refuse(R"({"name": "a", "role": "admin", "token_sha256": [1]})", "token_sha256 is no string");
  refuse(R"({"name": "a", "role": "admin", "certificate": ["x", "x"]})",
         "certificate stands in the file twice");
  absl::Status twice = Identities::Parse(R"({"name": "a", "role": "admin", )" + token +
                                         "}\n"
                                         R"({"name": "b", "role": "admin", )" +
                                         token + "}")
                           .status();
  EXPECT_THAT(std::string(twice.message()), HasSubstr("line 2: token_sha256 stands in the file twice"));
  twice = Identities::Parse(R"({"name": "a", "role": "admin", )" + token +
                            "}\n"
                            R"({"name": "a", "role": "admin", "certificate": "c"})")
              .status();
  EXPECT_THAT(std::string(twice.message()), HasSubstr("line 2: name"));
  // A mistake must not print what it stumbled over: it may be a token.
  EXPECT_THAT(std::string(Identities::Parse(R"({"name": "a", "role": "admin", "token_sha256": "secret"})")
                              .status()
                              .message()),
              Not(HasSubstr("secret\"")));
}

TEST(TenantOf, FollowsTheRole) {
  auto code = [](Role role, const std::string& named) {
    absl::StatusOr<std::string> tenant = TenantOf({"x", role, role == Role::kClient ? "own" : ""}, named);
    return tenant.ok() ? *tenant : absl::StatusCodeToString(tenant.status().code());
  };
  EXPECT_EQ(code(Role::kClient, ""), "own");
  EXPECT_EQ(code(Role::kClient, "own"), "own");
  EXPECT_EQ(code(Role::kClient, "other"), "PERMISSION_DENIED");
  EXPECT_EQ(code(Role::kDelegate, "any"), "any");
  EXPECT_EQ(code(Role::kDelegate, ""), "PERMISSION_DENIED");
  EXPECT_EQ(code(Role::kAdmin, ""), "PERMISSION_DENIED");
  EXPECT_EQ(code(Role::kAdmin, "any"), "PERMISSION_DENIED");
  EXPECT_EQ(code(Role::kOpen, ""), "");
  EXPECT_EQ(code(Role::kOpen, "any"), "any");
}

TEST(Address, IsLocalOnlyWhereNothingElseIsPossible) {
  for (const char* local :
       {"127.0.0.1:0", "127.8.9.1:80", "localhost:50061", "[::1]:80", "unix:/run/s", "unix:s",
        "unix:///run/s", "unix-abstract:s", "ipv4:127.0.0.1:80", "ipv6:[::1]:80", "dns:localhost:80",
        "dns:///localhost:80", "dns:///127.0.0.1:80"}) {
    EXPECT_TRUE(IsLocalAddress(local)) << local;
  }
  for (const char* remote :
       {"0.0.0.0:80", "[::]:80", "10.0.0.1:80", "127.0.0.1.example.org:80", "localhost.example.org:80",
        "example.org:443", "", ":80", "*:80", "dns://10.0.0.1/localhost:80", "ipv4:127.0.0.1:80,10.0.0.1:80",
        "ipv4:10.0.0.1:80", "128.0.0.1:80", "[::ffff:10.0.0.1]:80", "vsock:1:2"}) {
    EXPECT_FALSE(IsLocalAddress(remote)) << remote;
  }
}

TEST(OpenAuthenticator, RefusesToBeOpenToTheWorldByAccident) {
  auto code = [](const AccessOptions& options, const std::string& listen) {
    return OpenAuthenticator(options, listen).status().code();
  };
  EXPECT_EQ(code({}, "127.0.0.1:0"), StatusCode::kOk);
  EXPECT_EQ(code({}, "unix:/run/x"), StatusCode::kOk);
  EXPECT_EQ(code({}, "0.0.0.0:0"), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({"", true}, "0.0.0.0:0"), StatusCode::kOk);
  EXPECT_EQ(code({"/nowhere/file", false}, "127.0.0.1:0"), StatusCode::kNotFound);
  TemporaryFolder folder;
  AccessOptions options;
  options.identities = folder.Write("ids", "nonsense");
  EXPECT_EQ(code(options, "127.0.0.1:0"), StatusCode::kInvalidArgument);
  folder.Write("ids", R"({"name": "a", "role": "admin", "certificate": "c"})");
  EXPECT_EQ(code(options, "0.0.0.0:0"), StatusCode::kOk);
}

TEST(BearerToken, IsTrimmedCheckedAndReadAgain) {
  TemporaryFolder folder;
  auto token = BearerToken::FromFile(folder.Write("token", " secret \n"));
  ASSERT_TRUE(token.ok()) << token.status();
  EXPECT_EQ((*token)->Header(), "Bearer secret");
  for (std::string bad :
       {std::string(), std::string("\n"), std::string("two words"), std::string(5000, 'x')}) {
    EXPECT_FALSE(BearerToken::FromFile(folder.Write("token", bad)).ok()) << bad.size();
  }
  EXPECT_EQ(BearerToken::FromFile(folder / "none").status().code(), StatusCode::kNotFound);
}

TEST(BearerToken, LeavesThisMachineOverTlsOnly) {
  TemporaryFolder folder;
  ChannelOptions options;
  options.token_file = folder.Write("token", "secret");
  EXPECT_EQ(NewChannel("example.org:443", options).status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(NewChannel("127.0.0.1:443", options).ok());
  EXPECT_TRUE(NewChannel("unix:/run/s", options).ok());
  TestAuthority authority(folder);
  options.ca = authority.ca();
  EXPECT_TRUE(NewChannel("example.org:443", options).ok());
}

TEST(WatchedFile, NoticesEveryReplacement) {
  TemporaryFolder folder;
  WatchedFile file(folder.Write("f", "one"));
  EXPECT_TRUE(file.Changed());
  EXPECT_EQ(*file.Read(100), "one");
  folder.Write("f", "two");  // the same size, within one step of the clock
  EXPECT_TRUE(file.Changed());
  EXPECT_EQ(*file.Read(100), "two");
  EXPECT_EQ(file.Read(2).status().code(), StatusCode::kResourceExhausted);
  std::filesystem::remove(folder / "f");
  EXPECT_TRUE(file.Changed());
  EXPECT_EQ(file.Read(100).status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace quire::runtime

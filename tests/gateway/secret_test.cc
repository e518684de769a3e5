#include "gateway/auth/secret.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

namespace quire::gateway {
namespace {

namespace fs = std::filesystem;

class SecretTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "quire-secret-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string Write(const std::string& text) {
    const std::string path = (folder_ / "given").string();
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  fs::path folder_;
};

TEST_F(SecretTest, IsMadeOnceReadableByItsOwnerAlone) {
  const std::string data = (folder_ / "not" / "yet" / "there").string();
  auto first = LoadSecret({.data_dir = data});
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->size(), 64u);
  struct stat info {};
  ASSERT_EQ(stat((data + "/gateway.secret").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(*LoadSecret({.data_dir = data}), *first);
  EXPECT_EQ(std::distance(fs::directory_iterator(data), fs::directory_iterator()), 1);  // nothing left aside
}

TEST_F(SecretTest, ANamedFileIsMadeOnlyWithADataFolder) {
  const std::string file = (folder_ / "mine").string();
  auto missing = LoadSecret({.file = file});
  EXPECT_TRUE(absl::IsNotFound(missing.status())) << missing.status();
  EXPECT_NE(missing.status().message().find(file), std::string::npos);
  EXPECT_TRUE(LoadSecret({.file = file, .data_dir = folder_.string()}).ok());
  EXPECT_TRUE(LoadSecret({.file = file}).ok());
}

TEST_F(SecretTest, ManyAtOnceGetTheSame) {
  std::vector<std::string> got(16);
  std::vector<std::thread> threads;
  for (auto& one : got) {
    threads.emplace_back([&] {
      auto secret = LoadSecret({.data_dir = folder_.string()});
      if (secret.ok()) one = *secret;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(std::set<std::string>(got.begin(), got.end()).size(), 1u);
  EXPECT_FALSE(got[0].empty());
}

TEST_F(SecretTest, WhiteSpaceAtTheEndIsNoPartOfIt) {
  EXPECT_EQ(*LoadSecret({.file = Write("0123456789abcdef\r\n \n")}), "0123456789abcdef");
}

TEST_F(SecretTest, BadFilesAreRefusedWithoutTellingTheirContent) {
  for (const std::string& text :
       {std::string(), std::string("short-secret"), std::string(100, ' '), std::string(5000, 'x')}) {
    auto secret = LoadSecret({.file = Write(text)});
    EXPECT_TRUE(absl::IsInvalidArgument(secret.status())) << secret.status();
    EXPECT_EQ(secret.status().message().find("short-secret"), std::string::npos);
  }
  EXPECT_FALSE(LoadSecret({.file = folder_.string()}).ok());
}

TEST_F(SecretTest, WithoutAnyFolderEachProcessHasItsOwn) { EXPECT_NE(*LoadSecret({}), *LoadSecret({})); }

// The definition, spelled out with OpenSSL itself.
std::string Expected(const std::string& secret, const std::string& tenant, const std::string& salt) {
  auto length = [](size_t n) {
    return std::string{static_cast<char>(n), static_cast<char>(n >> 8), static_cast<char>(n >> 16),
                       static_cast<char>(n >> 24)};
  };
  const std::string message = "quire.salt.v1" + length(tenant.size()) + tenant + length(salt.size()) + salt;
  unsigned char out[32];
  unsigned size = 0;
  HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
       reinterpret_cast<const unsigned char*>(message.data()), message.size(), out, &size);
  return std::string(reinterpret_cast<char*>(out), size);
}

TEST(Salt, IsWhatTheDesignSays) {
  for (const auto& [tenant, salt] :
       std::vector<std::pair<std::string, std::string>>{{"", ""},
                                                        {"acme", ""},
                                                        {"", "s"},
                                                        {"acme", "s"},
                                                        {std::string(300, 't'), std::string("\0x", 2)}}) {
    EXPECT_EQ(DeriveSalt("a secret of ours", tenant, salt).AsString(),
              Expected("a secret of ours", tenant, salt));
  }
  EXPECT_NE(DeriveSalt("k", "ab", "c"), DeriveSalt("k", "a", "bc"));
}

}  // namespace
}  // namespace quire::gateway

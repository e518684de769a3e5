// A certificate authority for tests, and certificates signed by it, in PEM files.
#pragma once

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

namespace quire::runtime {

// A folder of one's own, gone with its owner.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "quire-test-XXXXXX").string();
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    path_ = pattern;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }
  // Writes a file, replacing it in one step. Returns its path.
  std::string Write(const std::string& name, const std::string& text) const {
    std::string path = *this / name, next = path + ".next";
    std::ofstream(next, std::ios::binary | std::ios::trunc) << text;
    std::filesystem::rename(next, path);
    return path;
  }

 private:
  std::string path_;
};

class TestAuthority {
 public:
  explicit TestAuthority(const TemporaryFolder& folder) : folder_(folder), key_(EVP_EC_gen("P-256")) {
    certificate_ = Certificate(key_, "test authority", "CA:TRUE", "");
    Save(folder_ / "ca.pem", certificate_);
  }
  ~TestAuthority() {
    X509_free(certificate_);
    EVP_PKEY_free(key_);
  }
  std::string ca() const { return folder_ / "ca.pem"; }
  // Makes NAME.pem and NAME.key. `alternative_names`: as "DNS:a.example,IP:127.0.0.1"; "": none.
  void Issue(const std::string& name, const std::string& common_name, const std::string& alternative_names) {
    EVP_PKEY* key = EVP_EC_gen("P-256");
    X509* certificate = Certificate(key, common_name, "CA:FALSE", alternative_names);
    Save(folder_ / (name + ".pem"), certificate);
    FILE* file = std::fopen((folder_ / (name + ".key")).c_str(), "w");
    PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
    std::fclose(file);
    X509_free(certificate);
    EVP_PKEY_free(key);
  }
  std::string certificate(const std::string& name) const { return folder_ / (name + ".pem"); }
  std::string key(const std::string& name) const { return folder_ / (name + ".key"); }

 private:
  static void Save(const std::string& path, X509* certificate) {
    FILE* file = std::fopen(path.c_str(), "w");
    PEM_write_X509(file, certificate);
    std::fclose(file);
  }
  static void Extend(X509* certificate, int id, const std::string& value) {
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, id, value.c_str());
    ASSERT_NE(extension, nullptr);
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
  }
  X509* Certificate(EVP_PKEY* key, const std::string& common_name, const std::string& constraints,
                    const std::string& alternative_names) {
    X509* x509 = X509_new();
    X509_set_version(x509, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x509), ++serial_);
    X509_gmtime_adj(X509_getm_notBefore(x509), -60);
    X509_gmtime_adj(X509_getm_notAfter(x509), 3600);
    X509_set_pubkey(x509, key);
    X509_NAME* name = X509_get_subject_name(x509);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(common_name.c_str()), -1, -1, 0);
    X509_set_issuer_name(x509, certificate_ != nullptr ? X509_get_subject_name(certificate_) : name);
    Extend(x509, NID_basic_constraints, constraints);
    if (!alternative_names.empty()) Extend(x509, NID_subject_alt_name, alternative_names);
    X509_sign(x509, key_, EVP_sha256());
    return x509;
  }

  const TemporaryFolder& folder_;
  EVP_PKEY* key_;
  X509* certificate_ = nullptr;
  long serial_ = 0;
};

}  // namespace quire::runtime

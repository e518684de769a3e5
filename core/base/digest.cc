#include "core/base/digest.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "absl/strings/escaping.h"

namespace quire {

std::string HexString(Bytes bytes) {
  return absl::BytesToHexString({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

std::string Digest::Hex() const { return HexString(bytes); }

std::optional<Digest> Digest::FromBytes(std::string_view raw) {
  Digest d;
  if (raw.size() != d.bytes.size()) return std::nullopt;
  std::copy(raw.begin(), raw.end(), d.bytes.begin());
  return d;
}

std::optional<Digest> Digest::FromHex(std::string_view hex) {
  Digest d;
  if (hex.size() != 2 * d.bytes.size()) return std::nullopt;
  for (size_t i = 0; i < hex.size(); ++i) {
    char c = hex[i];
    int v = c >= '0' && c <= '9'   ? c - '0'
            : c >= 'a' && c <= 'f' ? c - 'a' + 10
            : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                   : -1;
    if (v < 0) return std::nullopt;
    d.bytes[i / 2] = static_cast<uint8_t>(d.bytes[i / 2] << 4 | v);
  }
  return d;
}

struct Sha256::Context {
  EVP_MD_CTX* md = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(md); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  EVP_DigestInit_ex(context_->md, EVP_sha256(), nullptr);
}
Sha256::~Sha256() = default;

Sha256& Sha256::Update(Bytes bytes) {
  EVP_DigestUpdate(context_->md, bytes.data(), bytes.size());
  return *this;
}

Sha256& Sha256::UpdateU32(uint32_t value) {
  return Update(Bytes(reinterpret_cast<const uint8_t*>(&value), sizeof(value)));
}

Digest Sha256::Finish() {
  Digest d;
  EVP_DigestFinal_ex(context_->md, d.bytes.data(), nullptr);
  return d;
}

Digest HmacSha256(std::string_view secret, std::string_view message) {
  Digest d;
  HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
       reinterpret_cast<const unsigned char*>(message.data()), message.size(), d.bytes.data(), nullptr);
  return d;
}

}  // namespace quire

#include "core/block/keys.h"

#include "core/block/layout.h"

namespace quire {
namespace {

Bytes AsBytes(std::span<const uint32_t> tokens) {
  return {reinterpret_cast<const uint8_t*>(tokens.data()), tokens.size_bytes()};
}

}  // namespace

Digest RootKey(const Digest& fingerprint, std::string_view salt, std::string_view extra) {
  Sha256 sha;
  sha.Update("quire.root.v1").Update(fingerprint.bytes);
  sha.UpdateU32(static_cast<uint32_t>(salt.size())).Update(salt);
  sha.UpdateU32(static_cast<uint32_t>(extra.size())).Update(extra);
  return sha.Finish();
}

Digest BlockKey(const Digest& parent, std::span<const uint32_t> tokens) {
  return Sha256().Update("quire.block.v1").Update(parent.bytes).Update(AsBytes(tokens)).Finish();
}

std::vector<Digest> BlockKeys(const Digest& root, std::span<const uint32_t> tokens) {
  std::vector<Digest> keys;
  keys.reserve(tokens.size() / kBlockTokens);
  for (size_t at = 0; at + kBlockTokens <= tokens.size(); at += kBlockTokens) {
    keys.push_back(BlockKey(keys.empty() ? root : keys.back(), tokens.subspan(at, kBlockTokens)));
  }
  return keys;
}

}  // namespace quire

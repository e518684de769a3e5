// Prompts for a load generator: chains of blocks that share two payloads, a first block's and another's, so
// that a new prompt costs its keys and headers only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/block/object.h"
#include "services/store/client/remote_store.h"

namespace quire::cli {

// Identities of the blocks of prompt number `number`; `salt` keeps one run's from another's.
std::vector<BlockIdentity> LoadChain(const Digest& fingerprint, const std::string& salt, uint64_t number,
                                     uint32_t blocks);

// The bytes of such blocks: as objects of a codec, or raw. Not thread-safe: one a client.
class LoadBlocks {
 public:
  // `spec`: canonical; raw: the blocks are raw KV for the store to encode. Values are normal, of mean 0 and
  // standard deviation 1.
  static absl::StatusOr<LoadBlocks> Create(const Layout& layout, const std::string& spec, bool raw,
                                           uint32_t blocks);
  // The blocks of a chain, valid until the next call. REQUIRES: chain.size() is `blocks`.
  std::span<const store::PutBlock> Of(std::span<const BlockIdentity> chain);
  uint64_t chain_bytes() const;
  uint64_t raw_chain_bytes() const { return raw_bytes_; }

 private:
  uint64_t raw_bytes_ = 0;
  std::vector<BlockHeader> headers_;  // of the first block, and of the others; none where raw
  std::vector<std::vector<uint8_t>> bytes_;
  std::vector<store::PutBlock> blocks_;
};

}  // namespace quire::cli

// Blocks of an 8B model, coded, and how they go into a store and out of it.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/block/object.h"
#include "services/store/api/kv_store.h"
#include "services/store/client/remote_store.h"

namespace quire::bench {

// 64 tokens of it are 8 MiB raw.
inline constexpr uint32_t kChainLayers = 32, kChainHeads = 8, kChainDim = 128;
inline constexpr int kChainBlocks = 32;
inline constexpr uint64_t kChainRawBytes = uint64_t{8} << 20;  // of a block

// A chain of coded blocks. All have the same payload, encoded once: the store looks at headers and checksums,
// not at values.
struct Chain {
  Layout layout;
  Digest root;
  std::vector<store::BlockAnnounce> announces;
  std::vector<BlockIdentity> identities;
  std::vector<std::vector<uint8_t>> objects;
  uint64_t bytes = 0;

  std::vector<Digest> keys() const;
  std::vector<store::PutBlock> blocks() const;  // borrow `objects`
};

absl::StatusOr<Chain> MakeChain(std::string_view salt);
absl::Status PutAll(store::KvStore& kv, const store::Namespace& ns, const Chain& chain);
// The same through a client's pipelined Put.
absl::Status PutBlocks(store::RemoteStore& remote, const store::Namespace& ns,
                       std::span<const store::PutBlock> blocks);
absl::Status GetAll(store::KvStore& kv, const store::Namespace& ns, const Chain& chain);

}  // namespace quire::bench

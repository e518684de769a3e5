// What a soak puts and expects back: every byte of a block follows from the block's key, so that each Get can
// be checked by itself.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/block/layout.h"
#include "core/block/object.h"
#include "services/store/client/remote_store.h"

namespace quire::bench {

// One conversation's blocks.
struct SoakChain {
  std::string tenant;
  std::string encode;  // not empty: put as raw KV, for the store to encode so
  std::vector<BlockIdentity> identities;
  std::vector<Digest> keys;
  std::vector<std::vector<uint8_t>> raw;      // where `encode` is set
  std::vector<std::vector<uint8_t>> objects;  // as they are to come back, or their first levels

  // From a block to the end, as PutBlocks takes them; they borrow from this.
  std::vector<store::PutBlock> ToPut(size_t from) const;
  bool IsRight(size_t block, Bytes object) const;
};

struct SoakBlocks {
  Layout layout;
  std::vector<SoakChain> chains;
};

inline constexpr uint32_t kSoakTenants = 4, kSoakChainBlocks = 6;
std::string SoakTenant(uint32_t number);

// `chains` of each tenant, by turns as tq:k4v4, as raw KV that the store encodes, and as codec raw.
absl::StatusOr<SoakBlocks> MakeSoakBlocks(uint32_t chains);

}  // namespace quire::bench

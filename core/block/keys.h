// The key chain: names of blocks that depend on the layout, a salt and every token up to the block's end.
//
//   root  = SHA-256("quire.root.v1" ‖ fingerprint ‖ u32 len ‖ salt ‖ u32 len ‖ extra)
//   key_i = SHA-256("quire.block.v1" ‖ key_{i−1} ‖ 64 tokens as u32)          key_{−1} = root
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/digest.h"

namespace quire {

Digest RootKey(const Digest& fingerprint, std::string_view salt, std::string_view extra = {});
// REQUIRES: tokens.size() == kBlockTokens.
Digest BlockKey(const Digest& parent, std::span<const uint32_t> tokens);
// Keys of all whole blocks of a prompt, in order; tokens of a last partial block have no key.
std::vector<Digest> BlockKeys(const Digest& root, std::span<const uint32_t> tokens);

}  // namespace quire

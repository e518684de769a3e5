// Which blob files to rewrite.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace quire::store {

struct BlobFile {
  uint64_t bytes = 0;
  uint64_t garbage = 0;  // of them, in no live object
};

// RocksDB rewrites the oldest files of a family together. Returns how many of them free at least `wanted`
// bytes for the least rewriting, but of at most `most` bytes in all (though always one, if any has garbage);
// 0 where there is nothing to free.
size_t FilesToRewrite(std::span<const BlobFile> oldest_first, uint64_t wanted, uint64_t most);

}  // namespace quire::store

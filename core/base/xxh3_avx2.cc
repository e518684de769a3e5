// XXH3-64 with AVX2. This file alone is compiled for it, so it includes nothing whose inline functions
// another file might share.
#define XXH_INLINE_ALL
#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>

namespace quire {
uint64_t Xxh3Avx2(const void* bytes, size_t size) { return XXH3_64bits(bytes, size); }
}  // namespace quire

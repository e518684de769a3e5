// XXH3-64 by the widest vectors that this machine has.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/base/digest.h"

namespace quire {
#ifdef QUIRE_XXH3_AVX2
uint64_t Xxh3Avx2(const void* bytes, size_t size);  // xxh3_avx2.cc

uint64_t Xxh3(Bytes bytes) {
  static const bool kAvx2 = __builtin_cpu_supports("avx2") != 0;
  return kAvx2 ? Xxh3Avx2(bytes.data(), bytes.size()) : XXH3_64bits(bytes.data(), bytes.size());
}
#else
uint64_t Xxh3(Bytes bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }
#endif
}  // namespace quire

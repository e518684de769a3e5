// Counts and sizes the store refuses to go beyond. The same numbers stand in proto/quire/v1/kv_store.proto.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quire::store {

inline constexpr size_t kMaxTenantBytes = 256;
inline constexpr size_t kMaxKeys = 65536;         // keys of one Lookup or Delete
inline constexpr size_t kMaxBlocks = 4096;        // blocks of one Put or Get
inline constexpr uint32_t kMaxLeaseMs = 600'000;  // of one Lookup
inline constexpr int32_t kMinPriority = -100, kMaxPriority = 100;
inline constexpr uint64_t kMaxTtlMs = uint64_t{366} * 24 * 3600 * 1000;
inline constexpr size_t kChunkBytes = 1 << 20;  // data bytes of one stream message

}  // namespace quire::store

// How one level of an object stands in the database.
#pragma once

#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "core/base/bytes.h"
#include "services/store/tier/object_tier.h"

namespace quire::store {

inline constexpr size_t kLevelKeyBytes = ObjectName::kEncodedBytes + 1;
inline constexpr size_t kCheckBytes = sizeof(uint64_t);  // behind the bytes of each level

// Key of one level, made from the name's.
std::string LevelKey(const std::string& key, uint32_t level);

// Puts the level's bytes and their checksum.
void PutLevel(rocksdb::WriteBatch& batch, rocksdb::ColumnFamilyHandle* family, const std::string& key,
              Bytes level);

// Copies the level's bytes, of what is stored under its key, to the beginning of `out`, and returns how many.
// DATA_LOSS if they are others than were written, NOT_FOUND if they are more than `out` takes.
absl::StatusOr<size_t> TakeLevel(const std::string& key, Bytes value, MutableBytes out);

}  // namespace quire::store

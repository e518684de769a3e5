// The byte level of GGUF, private to core/model: bytes in, metadata and tensors out.
#pragma once

#include <string>
#include <vector>

#include "core/model/gguf.h"

namespace quire {

struct GgufContents {
  absl::flat_hash_map<std::string, GgufFile::Value> metadata;
  std::vector<GgufTensor> tensors;  // in the file's order; data points into the parsed bytes
  absl::flat_hash_map<std::string, size_t> by_name;
};

// INVALID_ARGUMENT (UNIMPLEMENTED for known tensor types that are not supported) naming what is wrong and the
// file offset. Memory stays within a constant factor of bytes.size(), whatever the counts in the file claim:
// nothing is reserved before the bytes that it describes are known to be there.
absl::StatusOr<GgufContents> ParseGguf(Bytes bytes);

}  // namespace quire

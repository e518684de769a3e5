// How many bits codes take, and which levels make how many bits.
#pragma once

#include "absl/status/statusor.h"
#include "core/block/layout.h"
#include "core/codec/spec.h"

namespace quire::worker {

// Bits an element of K and of V, the mean over layers, at the levels that are read: indices and everything
// the levels hold beside them (scales and their corrections, K's block mean). Sinks, headers, checksums and
// padding are not in it.
struct CodeBits {
  double k = 0, v = 0;
};
// levels: 0 means all.
absl::StatusOr<CodeBits> BitsOf(const Layout& layout, const CodecSpec& spec, int levels);

// Bits an element of a whole object of all levels, which isn't a sequence's first: headers, checksums and
// padding too.
absl::StatusOr<double> ObjectBitsOf(const Layout& layout, const CodecSpec& spec);

// How many levels of an object coded with `spec` make `keep_bits` bits: a layer of fewer bits keeps what it
// has. INVALID_ARGUMENT where no level of some layer ends there.
absl::StatusOr<int> LevelsFor(const Layout& layout, const CodecSpec& spec, int keep_bits);

// K and V elements of a token over all layers.
uint64_t TokenElements(const Layout& layout);

}  // namespace quire::worker

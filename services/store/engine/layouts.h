// The layouts a store knows, by number and by fingerprint, and the codecs of their parts.
#pragma once

#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "core/block/layout.h"
#include "core/block/object.h"

namespace quire::store {

// Immutable but for its cache of codecs; thread-safe.
class KnownLayout {
 public:
  KnownLayout(uint32_t id, Layout layout)
      : id(id), layout(std::move(layout)), fingerprint(this->layout.Fingerprint()) {}

  const uint32_t id;
  const Layout layout;
  const Digest fingerprint;

  // A part as a request names it: all zero is the whole layout. INVALID_ARGUMENT if it is not within the
  // layout.
  absl::StatusOr<Part> Resolve(const Part& part) const;
  absl::StatusOr<std::shared_ptr<const BlockCodec>> Codec(const Part& part) const;

 private:
  static constexpr size_t kCachedCodecs = 64;
  mutable std::shared_mutex mu_;  // guards codecs_
  mutable absl::flat_hash_map<Part, std::shared_ptr<const BlockCodec>> codecs_;
};

// Thread-safe. Layouts stay until the registry dies.
class LayoutRegistry {
 public:
  static constexpr size_t kMaxLayouts = 1024;

  // RESOURCE_EXHAUSTED past kMaxLayouts.
  absl::StatusOr<std::shared_ptr<const KnownLayout>> Register(const Layout& layout);
  // NOT_FOUND: to be registered first.
  absl::StatusOr<std::shared_ptr<const KnownLayout>> Find(const Digest& fingerprint) const;
  // By the number it has here; null if there is no such.
  std::shared_ptr<const KnownLayout> ById(uint32_t id) const;
  uint64_t size() const;

 private:
  mutable std::shared_mutex mu_;  // guards all below
  std::vector<std::shared_ptr<const KnownLayout>> by_id_;
  absl::flat_hash_map<Digest, std::shared_ptr<const KnownLayout>> layouts_;
};

// Sizes that an object of this part can have: between the smallest header with one level and the largest
// codec's object.
struct ObjectSizes {
  uint64_t least = 0, most = 0;
};
absl::StatusOr<ObjectSizes> PossibleObjectSizes(const Layout& layout, const Part& part);

}  // namespace quire::store

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
  // The number of a layout, known or (from storage) to be registered later. RESOURCE_EXHAUSTED likewise.
  absl::StatusOr<uint32_t> NumberOf(const Digest& fingerprint);
  // By number; null while it is not registered.
  std::shared_ptr<const KnownLayout> ByNumber(uint32_t number) const;
  uint64_t size() const;

 private:
  // REQUIRES: mu_ is held.
  absl::StatusOr<uint32_t> NumberLocked(const Digest& fingerprint);

  mutable std::shared_mutex mu_;  // guards all below
  absl::flat_hash_map<Digest, uint32_t> numbers_;
  std::vector<std::shared_ptr<const KnownLayout>> layouts_;  // by number; null: not registered
  uint64_t registered_ = 0;
};

// Sizes that an object of this part can have: between the smallest header with one level and the largest
// codec's object.
struct ObjectSizes {
  uint64_t least = 0, most = 0;
};
absl::StatusOr<ObjectSizes> PossibleObjectSizes(const Layout& layout, const Part& part);

}  // namespace quire::store

// Verifies an object while its bytes arrive, each slice once it is whole: its bytes are then still in a
// cache.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/block/object.h"

namespace quire::store {

// Not thread-safe.
class ArrivalCheck {
 public:
  // `object`: where the bytes arrive, from the first to the last; borrowed, all of it as long as announced.
  ArrivalCheck(std::shared_ptr<const BlockCodec> codec, const BlockIdentity& identity, Bytes object)
      : codec_(std::move(codec)), identity_(identity), object_(object) {}

  // The first `arrived` bytes are there. What is wrong with them is Finish's to say.
  void Arrived(uint64_t arrived);
  // All are there. DATA_LOSS and the rest as BlockReader's Open and Verify.
  absl::StatusOr<BlockReader> Finish();

 private:
  bool OpenHeader(uint64_t arrived);
  Extent Next() const { return reader_->slices().layer(level_, layer_); }

  const std::shared_ptr<const BlockCodec> codec_;
  const BlockIdentity identity_;
  const Bytes object_;
  absl::Status status_;
  std::optional<BlockReader> reader_;  // once the header is there
  int level_ = 0;                      // the next to be checked
  uint32_t layer_ = 0;
};

}  // namespace quire::store

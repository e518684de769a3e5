#include "services/store/engine/arrival_check.h"

#include <utility>

namespace quire::store {

bool ArrivalCheck::OpenHeader(uint64_t arrived) {
  if (reader_) return true;
  if (arrived < object_.size()) {
    if (arrived < kHeaderPrefixBytes) return false;
    // What is no header is said by Open, once everything is there.
    absl::StatusOr<uint32_t> header_bytes = HeaderBytes(object_.first(kHeaderPrefixBytes));
    if (!header_bytes.ok() || arrived < *header_bytes) return false;
  }
  absl::StatusOr<BlockReader> reader = BlockReader::Open(codec_, identity_, object_);
  if (reader.ok()) reader_ = *std::move(reader);
  status_ = reader.status();
  return status_.ok();
}

void ArrivalCheck::Arrived(uint64_t arrived) {
  if (!status_.ok() || !OpenHeader(arrived)) return;
  while (level_ < reader_->levels() && Next().end() <= arrived) {
    status_ = reader_->VerifySlices(level_, layer_, 0, reader_->slices().heads());
    if (!status_.ok()) return;
    if (++layer_ == reader_->slices().layers()) layer_ = 0, ++level_;
  }
}

absl::StatusOr<BlockReader> ArrivalCheck::Finish() {
  Arrived(object_.size());
  if (!status_.ok()) return status_;
  return *std::move(reader_);
}

}  // namespace quire::store

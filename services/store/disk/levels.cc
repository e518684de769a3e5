#include "services/store/disk/levels.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "services/store/disk/database.h"

namespace quire::store {
namespace {

// What stands behind a level's bytes: it covers their key too, so that a pointer gone wrong is seen. Made a
// piece at a time, so that reading can check a piece while it is in the core's cache and copy it with the
// same pass over memory.
class LevelCheck {
 public:
  explicit LevelCheck(const std::string& key) : sum_(Xxh3(AsBytes(key))) {}
  void Add(Bytes piece) {
    std::array<uint64_t, 2> chain = {sum_, Xxh3(piece)};
    sum_ = Xxh3({reinterpret_cast<const uint8_t*>(chain.data()), sizeof chain});
  }
  uint64_t value() const { return sum_; }

  static constexpr size_t kPiece = 32 << 10;

 private:
  uint64_t sum_;
};

}  // namespace

std::string LevelKey(const std::string& key, uint32_t level) {
  std::string out = key;
  out.push_back(static_cast<char>(level));
  return out;
}

void PutLevel(rocksdb::WriteBatch& batch, rocksdb::ColumnFamilyHandle* family, const std::string& key,
              Bytes level) {
  LevelCheck check(key);
  for (size_t at = 0; at < level.size(); at += LevelCheck::kPiece)
    check.Add(level.subspan(at, std::min(LevelCheck::kPiece, level.size() - at)));
  uint64_t sum = check.value();
  std::array<rocksdb::Slice, 2> parts = {AsSlice(level),
                                         rocksdb::Slice(reinterpret_cast<const char*>(&sum), kCheckBytes)};
  rocksdb::Slice whole_key(key);
  batch.Put(family, rocksdb::SliceParts(&whole_key, 1), rocksdb::SliceParts(parts.data(), 2));
}

absl::StatusOr<size_t> TakeLevel(const std::string& key, Bytes value, MutableBytes out) {
  if (value.size() < kCheckBytes)
    return absl::DataLossError(absl::StrCat("a level of ", value.size(), " bytes in the disk tier"));
  Bytes level = value.first(value.size() - kCheckBytes);
  if (level.size() > out.size()) {
    return absl::NotFoundError(absl::StrCat("a level of the disk tier's object has ", level.size(),
                                            " bytes; room for it is ", out.size()));
  }
  LevelCheck check(key);
  for (size_t at = 0; at < level.size(); at += LevelCheck::kPiece) {
    Bytes piece = level.subspan(at, std::min(LevelCheck::kPiece, level.size() - at));
    check.Add(piece);
    std::memcpy(out.data() + at, piece.data(), piece.size());
  }
  uint64_t stated = 0;
  std::memcpy(&stated, value.data() + level.size(), kCheckBytes);
  if (stated == check.value()) return level.size();
  return absl::DataLossError(
      absl::StrCat("a level of ", level.size(), " bytes in the disk tier has a wrong checksum"));
}

}  // namespace quire::store

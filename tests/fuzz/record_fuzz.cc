// What tiers keep of objects: names and records, of the disk and of the shared tier.
#include <cstring>
#include <string>
#include <vector>

#include "core/base/digest.h"
#include "services/store/redis/stored_record.h"
#include "services/store/tier/object_tier.h"
#include "tests/fuzz/input.h"

namespace quire::fuzz {
namespace {

using store::ObjectName;
using store::ObjectRecord;

void RunRecord(Bytes bytes) {
  absl::StatusOr<ObjectRecord> record = ObjectRecord::Parse(bytes);
  if (!record.ok()) return;
  QUIRE_FUZZ_CHECK(record->Validate().ok());
  QUIRE_FUZZ_CHECK(record->levels <= record->made() && record->bytes() > record->header_bytes);
  QUIRE_FUZZ_CHECK(*ObjectRecord::Parse(AsBytes(record->Serialize())) == *record);
}

void RunName(Bytes bytes) {
  std::optional<ObjectName> name = ObjectName::Decode(bytes);
  QUIRE_FUZZ_CHECK(name.has_value() == (bytes.size() == ObjectName::kEncodedBytes));
  if (name) QUIRE_FUZZ_CHECK(name->Encode() == AsString(bytes));
}

void RunShared(Bytes bytes, const store::redis::Seal& seal) {
  ObjectName name{};
  absl::StatusOr<store::redis::StoredRecord> record = store::redis::StoredRecord::Parse(seal, name, bytes);
  if (!record.ok()) {
    (void)store::redis::StoredRecord::GenerationOf(bytes);
    return;
  }
  QUIRE_FUZZ_CHECK(record->record.Validate().ok());
  if (!seal) record->level_codes.clear();  // a store without a key reads sealed records and writes plain ones
  absl::StatusOr<store::redis::StoredRecord> again =
      store::redis::StoredRecord::Parse(seal, name, AsBytes(record->Serialize(seal, name)));
  QUIRE_FUZZ_CHECK(again.ok() && again->record == record->record && again->generation == record->generation);
}

// With its last eight bytes as the checksum that they should be.
std::vector<uint8_t> Sealed(Bytes bytes) {
  std::vector<uint8_t> out(bytes.begin(), bytes.end());
  if (out.size() < 8) return out;
  uint64_t sum = Xxh3(Bytes(out).first(out.size() - 8));
  std::memcpy(out.data() + out.size() - 8, &sum, sizeof(sum));
  return out;
}

}  // namespace
}  // namespace quire::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quire::fuzz;
  static const quire::store::redis::Seal sealed("0123456789abcdef");
  Input input(data, size);
  switch (input.Byte() % 5) {
    case 0:
      RunRecord(input.Rest());
      break;
    case 1:
      RunRecord(Sealed(input.Rest()));
      break;
    case 2:
      RunName(input.Rest());
      break;
    case 3:
      RunShared(input.Rest(), {});
      break;
    default:
      RunShared(input.Rest(), sealed);
  }
  return 0;
}

#include <algorithm>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "services/store/tier/object_tier.h"

namespace quire::store {
namespace {

constexpr uint8_t kVersion = 1;
// Of every version: the first byte is the version, the last eight are the XXH3-64 of all before them.
constexpr size_t kChecksumBytes = 8;

void PutBigEndian(std::string* out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out->push_back(static_cast<char>(value >> shift));
}

uint32_t GetBigEndian(ByteReader& reader) {
  Bytes b = reader.GetBytes(4);
  return uint32_t{b[0]} << 24 | uint32_t{b[1]} << 16 | uint32_t{b[2]} << 8 | b[3];
}

}  // namespace

std::string ObjectName::Prefix(const Digest& tenant, const Digest& key) {
  std::string out;
  out.reserve(kEncodedBytes);
  out.append(tenant.AsString());
  out.append(key.AsString());
  return out;
}

std::string ObjectName::Encode() const {
  std::string out = Prefix(tenant, key);
  for (uint32_t bound : {part.layer_begin, part.layer_end, part.head_begin, part.head_end})
    PutBigEndian(&out, bound);
  return out;
}

std::optional<ObjectName> ObjectName::Decode(Bytes bytes) {
  if (bytes.size() != kEncodedBytes) return std::nullopt;
  ByteReader reader(bytes);
  ObjectName name;
  name.tenant = reader.Get<Digest>();
  name.key = reader.Get<Digest>();
  for (uint32_t* bound :
       {&name.part.layer_begin, &name.part.layer_end, &name.part.head_begin, &name.part.head_end})
    *bound = GetBigEndian(reader);
  return name;
}

uint32_t ObjectRecord::made() const {
  return static_cast<uint32_t>(std::find(ends.begin(), ends.end(), 0u) - ends.begin());
}

absl::Status ObjectRecord::Validate() const {
  if (levels < 1 || levels > made()) {
    return absl::InvalidArgumentError(
        absl::StrCat("record states ", levels, " levels of ", made(), " that were made"));
  }
  if (header_bytes == 0 || header_bytes >= ends[0]) {
    return absl::InvalidArgumentError(absl::StrCat("record states a header of ", header_bytes,
                                                   " bytes in an object whose level 0 ends at ", ends[0]));
  }
  for (uint32_t l = 1; l < ends.size(); ++l) {
    bool absent = l >= made();
    if (absent ? ends[l] != 0 : ends[l] <= ends[l - 1]) {
      return absl::InvalidArgumentError(
          absl::StrCat("record's level ", l, " ends at ", ends[l], ", the one before it at ", ends[l - 1]));
    }
  }
  if (uint64_t end = ends[made() - 1]; end > kMaxObjectBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("record states an object of ", end, " bytes; at most ", kMaxObjectBytes, " are taken"));
  }
  if (codec.size() > kMaxCodecBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("record's codec has ", codec.size(), " bytes; at most ", kMaxCodecBytes, " are taken"));
  }
  return absl::OkStatus();
}

std::string ObjectRecord::Serialize() const {
  std::vector<uint8_t> out;
  out.reserve(192);
  ByteWriter writer(&out);
  writer.Put(kVersion);
  writer.Put(fingerprint);
  writer.Put(parent);
  writer.Put(index);
  writer.Put(levels);
  for (uint64_t end : ends) writer.Put(end);
  writer.Put(header_bytes);
  writer.Put(raw_bytes);
  writer.Put(bf16_bytes);
  writer.Put(priority);
  writer.Put(expires_ms);
  writer.PutString(codec);
  writer.Put(Xxh3(out));
  return std::string(AsString(out));
}

absl::StatusOr<ObjectRecord> ObjectRecord::Parse(Bytes bytes) {
  if (bytes.size() <= kChecksumBytes)
    return absl::DataLossError(absl::StrCat("a record of ", bytes.size(), " bytes"));
  Bytes body = bytes.first(bytes.size() - kChecksumBytes);
  uint64_t stated = 0;
  std::memcpy(&stated, bytes.data() + body.size(), kChecksumBytes);
  if (stated != Xxh3(body)) return absl::DataLossError("a record's checksum is wrong");
  ByteReader reader(body);
  if (auto version = reader.Get<uint8_t>(); version != kVersion) {
    return absl::UnimplementedError(
        absl::StrCat("a record of version ", version, "; this store knows version ", kVersion));
  }
  ObjectRecord record;
  record.fingerprint = reader.Get<Digest>();
  record.parent = reader.Get<Digest>();
  record.index = reader.Get<uint32_t>();
  record.levels = reader.Get<uint32_t>();
  for (uint64_t& end : record.ends) end = reader.Get<uint64_t>();
  record.header_bytes = reader.Get<uint32_t>();
  record.raw_bytes = reader.Get<uint64_t>();
  record.bf16_bytes = reader.Get<uint64_t>();
  record.priority = reader.Get<int32_t>();
  record.expires_ms = reader.Get<int64_t>();
  record.codec = AsString(reader.GetBytes(reader.Get<uint32_t>()));
  if (absl::Status status = reader.status("a record"); !status.ok()) return status;
  if (reader.remaining() != 0)
    return absl::DataLossError(absl::StrCat("a record has ", reader.remaining(), " bytes too many"));
  if (absl::Status status = record.Validate(); !status.ok()) return absl::DataLossError(status.message());
  return record;
}

}  // namespace quire::store

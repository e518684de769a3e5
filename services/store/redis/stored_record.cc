#include "services/store/redis/stored_record.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "core/base/digest.h"
#include "core/base/status_macros.h"

namespace quire::store::redis {
namespace {

constexpr uint8_t kVersion = 1;
constexpr uint8_t kSealed = 1;
constexpr size_t kLeastKey = 16, kMostKey = 4096;

template <typename T>
Bytes RawBytes(const T& value) {
  return {reinterpret_cast<const uint8_t*>(&value), sizeof(T)};
}

}  // namespace

// RFC 2104 by hand, because a level's bytes must go through it in place.
Seal::Seal(std::string_view key) : keyed_(true) {
  std::array<uint8_t, 64> padded{};
  if (key.size() > padded.size()) {
    Digest digest = Sha256().Update(key).Finish();
    std::copy(digest.bytes.begin(), digest.bytes.end(), padded.begin());
  } else {
    std::copy(key.begin(), key.end(), padded.begin());
  }
  for (size_t i = 0; i < padded.size(); ++i) {
    inner_[i] = padded[i] ^ 0x36;
    outer_[i] = padded[i] ^ 0x5c;
  }
}

absl::StatusOr<Seal> Seal::FromFile(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  std::string key(kMostKey + 1, '\0');
  if (in) in.read(key.data(), static_cast<std::streamsize>(key.size()));
  key.resize(static_cast<size_t>(std::max<std::streamsize>(in.gcount(), 0)));
  if (key.size() < kLeastKey || key.size() > kMostKey) {
    return absl::InvalidArgumentError(absl::StrCat("the redis HMAC key file ", file, " has ", key.size(),
                                                   " readable bytes; ", kLeastKey, " to ", kMostKey,
                                                   " are taken"));
  }
  return Seal(key);
}

Seal::Code Seal::Compute(std::initializer_list<Bytes> parts) const {
  Sha256 inner, outer;
  inner.Update(inner_);
  for (Bytes part : parts) inner.Update(part);
  Digest digest = outer.Update(outer_).Update(inner.Finish().AsString()).Finish();
  Code code;
  std::copy_n(digest.bytes.begin(), code.size(), code.begin());
  return code;
}

Seal::Code Seal::OfLevel(const ObjectName& name, uint64_t generation, uint32_t level, Bytes bytes) const {
  return Compute({AsBytes("quire.redis.level.v1"), AsBytes(name.Encode()), RawBytes(generation),
                  RawBytes(level), bytes});
}

Seal::Code Seal::OfRecord(const ObjectName& name, Bytes bytes) const {
  return Compute({AsBytes("quire.redis.record.v1"), AsBytes(name.Encode()), bytes});
}

bool Seal::Equal(const Code& a, const Code& b) { return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0; }

std::string StoredRecord::Serialize(const Seal& seal, const ObjectName& name) const {
  std::vector<uint8_t> out;
  out.reserve(512);
  ByteWriter writer(&out);
  writer.Put(kVersion);
  writer.Put(static_cast<uint8_t>(seal ? kSealed : 0));
  writer.Put(generation);
  writer.Put(static_cast<uint8_t>(level_codes.size()));
  for (const Seal::Code& code : level_codes) writer.PutBytes(code);
  writer.PutBytes(AsBytes(record.Serialize()));
  if (seal) writer.PutBytes(seal.OfRecord(name, out));
  return std::string(AsString(out));
}

absl::StatusOr<StoredRecord> StoredRecord::Parse(const Seal& seal, const ObjectName& name, Bytes bytes) {
  ByteReader reader(bytes);
  auto version = reader.Get<uint8_t>();
  if (reader.ok() && version != kVersion) {
    return absl::UnimplementedError(
        absl::StrCat("a redis record of version ", version, "; this store knows version ", kVersion));
  }
  auto flags = reader.Get<uint8_t>();
  StoredRecord stored;
  stored.generation = reader.Get<uint64_t>();
  auto codes = reader.Get<uint8_t>();
  bool sealed = flags == kSealed;
  if (!reader.ok() || flags > kSealed || codes > kMaxLevels)
    return absl::DataLossError("a redis record's head is malformed");
  if (seal && !sealed) return absl::DataLossError("a redis record carries no HMAC");
  for (int i = 0; i < codes; ++i) stored.level_codes.push_back(reader.Get<Seal::Code>());
  size_t tail = sealed ? sizeof(Seal::Code) : 0;
  if (!reader.ok() || reader.remaining() < tail) return absl::DataLossError("a redis record ends early");
  Bytes record = reader.GetBytes(reader.remaining() - tail);
  if (seal) {
    Seal::Code expected = seal.OfRecord(name, bytes.first(bytes.size() - tail));
    if (!Seal::Equal(reader.Get<Seal::Code>(), expected))
      return absl::DataLossError("a redis record's HMAC is wrong");
  }
  QUIRE_ASSIGN_OR_RETURN(stored.record, ObjectRecord::Parse(record));
  if (codes != (sealed ? stored.record.levels : 0)) {
    return absl::DataLossError(
        absl::StrCat("a redis record has ", codes, " level HMACs for ", stored.record.levels, " levels"));
  }
  return stored;
}

std::optional<uint64_t> StoredRecord::GenerationOf(Bytes bytes) {
  ByteReader reader(bytes);
  auto version = reader.Get<uint8_t>();
  reader.Skip(1);
  auto generation = reader.Get<uint64_t>();
  if (!reader.ok() || version != kVersion) return std::nullopt;
  return generation;
}

}  // namespace quire::store::redis

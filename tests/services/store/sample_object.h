// Objects as tiers see them: random bytes under made-up records. Everything follows from a number.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "services/store/tier/object_tier.h"

namespace quire::store {

struct SampleObject {
  ObjectName name;
  ObjectRecord record;
  std::vector<uint8_t> bytes;  // of all levels made
};

inline Digest SampleDigest(std::string_view what, uint32_t n) {
  return Sha256().Update(what).UpdateU32(n).Finish();
}

// Object number n of four levels, about `size` bytes in all: half of it in level 0. `version` changes the
// bytes and, a little, the sizes.
inline SampleObject MakeSample(uint32_t n, uint64_t size = 40'000, uint32_t version = 0) {
  std::mt19937 random(n * 1000 + version);
  SampleObject o;
  o.name = {SampleDigest("tenant", n % 3), SampleDigest("key", n), {0, 2 + n % 5, n % 2, 4}};
  o.record.fingerprint = SampleDigest("layout", 0);
  o.record.parent = SampleDigest("key", n - 1);
  o.record.index = n;
  o.record.levels = 4;
  o.record.header_bytes = 64;
  uint64_t unit = size / 8;
  o.record.ends = {4 * unit + 100 + n % 7 + version, 6 * unit + 200 + version, 7 * unit + 300 + version,
                   8 * unit + 400 + version};
  o.record.raw_bytes = 4 * size;
  o.record.bf16_bytes = 4 * size;
  o.record.priority = static_cast<int32_t>(n % 5) - 2;
  o.record.expires_ms = n % 2 == 0 ? 0 : 1'700'000'000'000 + n;
  o.record.codec = "tq:k4v4";
  o.bytes.resize(o.record.bytes());
  for (size_t i = 0; i + 4 <= o.bytes.size(); i += 4) {
    uint32_t word = static_cast<uint32_t>(random());
    std::memcpy(&o.bytes[i], &word, 4);
  }
  return o;
}

inline absl::Status WriteSample(ObjectTier& tier, const SampleObject& o) {
  return tier.Write(o.name, o.record, Bytes(o.bytes).first(o.record.bytes()));
}

// The first levels of an object; `want` bytes are asked for, unless 0: those its record states.
inline absl::StatusOr<std::vector<uint8_t>> ReadLevels(ObjectTier& tier, const SampleObject& o, int levels,
                                                       size_t want = 0) {
  std::vector<uint8_t> out(want == 0 ? o.record.ends[static_cast<size_t>(levels) - 1] : want);
  ObjectTier::ReadRequest request{o.name, levels, out, absl::UnknownError("not answered")};
  tier.Read({&request, 1});
  if (!request.status.ok()) return request.status;
  return out;
}

// Whether so many levels of the object come, equal to the byte.
inline bool Holds(ObjectTier& tier, const SampleObject& o, int levels) {
  absl::StatusOr<std::vector<uint8_t>> got = ReadLevels(tier, o, levels);
  return got.ok() && std::equal(got->begin(), got->end(), o.bytes.begin());
}

inline ObjectTier::FindRequest FindSample(ObjectTier& tier, const Digest& tenant, const Digest& key) {
  ObjectTier::FindRequest request{tenant, key, {}, absl::UnknownError("not answered")};
  tier.Find({&request, 1});
  return request;
}

}  // namespace quire::store

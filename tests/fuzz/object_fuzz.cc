// The object reader: ParseHeader, BlockReader, its checks and its decoders. Half of the inputs get checksums
// that hold, so that what stands behind the checksums is reached.
#include <cmath>
#include <cstring>
#include <optional>
#include <vector>

#include "core/block/object.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/layouts.h"

namespace quire::fuzz {
namespace {

constexpr size_t kFingerprintAt = 64, kLengthAt = 8;

std::vector<std::shared_ptr<const BlockCodec>>& Codecs() {
  static std::vector<std::shared_ptr<const BlockCodec>> codecs = [] {
    std::vector<std::shared_ptr<const BlockCodec>> made;
    for (const Layout& layout : Layouts()) made.push_back(*BlockCodec::Create(layout, Part::Whole(layout)));
    return made;
  }();
  return codecs;
}

void PutU64(std::vector<uint8_t>& bytes, size_t at, uint64_t value) {
  std::memcpy(bytes.data() + at, &value, sizeof(value));
}

// Makes the header's own checksum hold, if the header is whole.
void SealHeader(std::vector<uint8_t>& object) {
  if (object.size() < kLengthAt + 4) return;
  uint32_t length;
  std::memcpy(&length, object.data() + kLengthAt, sizeof(length));
  if (length < 16 || length > object.size()) return;
  PutU64(object, length - 8, Xxh3(Bytes(object).first(length - 8)));
}

// Makes all of them hold, and the fingerprint the layout's, if the header parses then.
void SealAll(std::vector<uint8_t>& object, const BlockCodec& codec) {
  if (object.size() < kFingerprintAt + 32) return;
  std::memcpy(object.data() + kFingerprintAt, codec.fingerprint().bytes.data(), 32);
  SealHeader(object);
  absl::StatusOr<BlockHeader> header = ParseHeader(object);
  if (!header.ok() || header->part != codec.part()) return;
  absl::StatusOr<SliceMap> map =
      SliceMap::Create(codec.layout(), header->part, header->codecs, header->sink_tokens);
  if (!map.ok() || map->checksums() != header->checksums.size() ||
      map->header_bytes() != header->header_bytes)
    return;
  auto sum = [&](const Extent& extent) {
    return extent.end() <= object.size() ? Xxh3(Bytes(object).subspan(extent.offset, extent.length)) : 0;
  };
  for (uint32_t layer = 0; layer < map->layers(); ++layer) {
    if (map->sinks(layer).length > 0)
      header->checksums[map->SinkChecksumIndex(layer)] = sum(map->sinks(layer));
    for (int level = 0; level < map->levels(); ++level) {
      for (uint32_t head = 0; head < map->heads(); ++head) {
        Extent slice = map->slice(level, layer, head);
        if (slice.length > 0) header->checksums[map->ChecksumIndex(level, layer, head)] = sum(slice);
      }
    }
  }
  std::vector<uint8_t> sealed = SerializeHeader(*header);
  QUIRE_FUZZ_CHECK(sealed.size() == header->header_bytes);
  std::memcpy(object.data(), sealed.data(), sealed.size());
}

void DecodeAll(const BlockReader& reader, const BlockCodec& codec) {
  for (uint32_t layer = 0; layer < reader.slices().layers(); ++layer) {
    const LayerLayout& shape = codec.layout().layers[layer];
    uint32_t heads = shape.heads(), dk = shape.key_dim(), dv = shape.value_dim();
    std::vector<float> k(size_t{64} * heads * dk), v(size_t{64} * heads * dv);
    for (int levels = 1; levels <= reader.levels(); ++levels) {
      absl::Status status =
          reader.DecodeLayer(layer, levels,
                             {{k.data(), DType::kF32, static_cast<ptrdiff_t>(heads * dk), dk},
                              {v.data(), DType::kF32, static_cast<ptrdiff_t>(heads * dv), dv}});
      QUIRE_FUZZ_CHECK(status.ok());
      if (reader.header().codecs[layer].codec != CodecId::kTq) continue;
      std::vector<float> rk(size_t{64} * dk), mean(dk), rv(size_t{64} * dv);
      for (uint32_t head = 0; head < heads; ++head)
        QUIRE_FUZZ_CHECK(reader.DecodeRotated(layer, head, levels, {rk, mean, rv}).ok());
    }
    std::vector<float> sink_k(size_t{reader.header().sink_tokens} * dk),
        sink_v(size_t{reader.header().sink_tokens} * dv);
    for (uint32_t head = 0; head < heads; ++head) (void)reader.DecodeSinks(layer, head, sink_k, sink_v);
  }
}

void Run(Input input) {
  uint8_t mode = input.Byte();
  const std::shared_ptr<const BlockCodec>& codec = Codecs()[(mode >> 2) % Codecs().size()];
  Bytes rest = input.Rest();
  std::vector<uint8_t> object(rest.begin(), rest.end());
  if (mode % 4 == 1) SealHeader(object);
  if (mode % 4 >= 2) SealAll(object, *codec);

  absl::StatusOr<BlockHeader> header = ParseHeader(object);
  if (header.ok()) {
    // What parses has one form.
    std::vector<uint8_t> again = SerializeHeader(*header);
    QUIRE_FUZZ_CHECK(again.size() == header->header_bytes);
    QUIRE_FUZZ_CHECK(ParseHeader(again).ok());
  }
  absl::StatusOr<BlockReader> reader = BlockReader::OpenAny(codec, object);
  QUIRE_FUZZ_CHECK(!reader.ok() || header.ok());
  if (!reader.ok()) return;
  absl::Status verified = reader->Verify();
  QUIRE_FUZZ_CHECK(mode % 4 < 2 || verified.ok());
  BlockIdentity other = reader->header().identity;
  QUIRE_FUZZ_CHECK(BlockReader::Open(codec, other, object).ok());
  other.key.bytes[0] ^= 1;
  QUIRE_FUZZ_CHECK(!BlockReader::Open(codec, other, object).ok());
  DecodeAll(*reader, *codec);
}

}  // namespace
}  // namespace quire::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  quire::fuzz::Run({data, size});
  return 0;
}

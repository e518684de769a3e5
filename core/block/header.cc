// The header of format v1: bytes to BlockHeader and back (core/block/README.md has the table).
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/block/object.h"

namespace quire {
namespace {

constexpr uint32_t kMagic = 0x31564B51;  // "QKV1"
constexpr uint16_t kVersion = 1;
constexpr size_t kFixedBytes = 192, kChecksumBytes = 8;

absl::Status Malformed(const std::string& what) {
  return absl::DataLossError(absl::StrCat("object header: ", what));
}

Digest GetDigest(ByteReader& in) { return Digest::FromBytes(AsString(in.GetBytes(32))).value_or(Digest{}); }

struct Counts {
  uint32_t levels = 0, checksums = 0;
};

// The first kFixedBytes, after the 16 that HeaderBytes has looked at.
absl::StatusOr<Counts> ParseFixed(ByteReader& in, BlockHeader* header) {
  header->sink_tokens = in.Get<uint32_t>();
  header->identity.index = in.Get<uint32_t>();
  header->part.layer_begin = in.Get<uint32_t>();
  header->part.layer_end = in.Get<uint32_t>();
  header->part.head_begin = in.Get<uint32_t>();
  header->part.head_end = in.Get<uint32_t>();
  header->rotation = static_cast<RotationId>(in.Get<uint16_t>());
  header->codebook = static_cast<CodebookId>(in.Get<uint16_t>());
  Counts counts;
  counts.levels = in.Get<uint32_t>();
  header->rotation_seed = in.Get<uint64_t>();
  counts.checksums = in.Get<uint32_t>();
  if (in.Get<uint32_t>() != 0) return Malformed("bytes 60 to 63 are not zero");
  header->fingerprint = GetDigest(in);
  header->identity.parent = GetDigest(in);
  header->identity.key = GetDigest(in);
  header->profile = GetDigest(in);

  const Part& part = header->part;
  if (part.layer_begin >= part.layer_end || part.layer_end > kMaxLayers) {
    return Malformed(absl::StrCat("layers [", part.layer_begin, ", ", part.layer_end,
                                  ") are no range within ", kMaxLayers));
  }
  if (part.head_begin >= part.head_end || part.head_end > kMaxHeads) {
    return Malformed(
        absl::StrCat("heads [", part.head_begin, ", ", part.head_end, ") are no range within ", kMaxHeads));
  }
  if (counts.levels < 1 || counts.levels > kMaxLevels)
    return Malformed(absl::StrCat(counts.levels, " levels, 1 to ", kMaxLevels, " are possible"));
  if (header->sink_tokens > kMaxSinkTokens) {
    return Malformed(
        absl::StrCat(header->sink_tokens, " sink tokens, at most ", kMaxSinkTokens, " are possible"));
  }
  if (header->sink_tokens > 0 && header->identity.index > 0) {
    return Malformed(
        absl::StrCat("sink tokens in block ", header->identity.index, "; only block 0 has them"));
  }
  return counts;
}

absl::Status ParseTables(ByteReader& in, const Counts& counts, uint32_t header_bytes, BlockHeader* header) {
  uint32_t layers = header->part.layers();
  for (uint32_t l = 0; l < layers; ++l) {
    LayerCodec& codec = header->codecs.emplace_back();
    uint8_t id = in.Get<uint8_t>();
    codec.k_bits = in.Get<uint8_t>();
    codec.v_bits = in.Get<uint8_t>();
    if (in.Get<uint8_t>() != 0) return Malformed(absl::StrCat("layer ", l, "'s codec does not end in zero"));
    if (id > static_cast<uint8_t>(CodecId::kQpc)) {
      return absl::UnimplementedError(
          absl::StrCat("object header: layer ", l, " has the unknown codec ", id));
    }
    codec.codec = static_cast<CodecId>(id);
    if (codec.k_bits > 8 || codec.v_bits > 8) {
      return Malformed(absl::StrCat("layer ", l, " has ", codec.k_bits, " and ", codec.v_bits,
                                    " bits, at most 8 are possible"));
    }
  }
  if (layers % 2 == 1) in.Skip(4);
  uint64_t end = header_bytes;
  for (uint32_t level = 0; level < counts.levels; ++level) {
    Extent extent{in.Get<uint64_t>(), in.Get<uint64_t>()};
    if (extent.offset != end || extent.length == 0 || extent.length % 16 != 0 ||
        extent.length > kMaxLevelBytes) {
      return Malformed(absl::StrCat("level ", level, " is said to lie at ", extent.offset, " with ",
                                    extent.length, " bytes"));
    }
    end = extent.end();
    header->levels.push_back(extent);
  }
  for (uint32_t level = 0; level < counts.levels; ++level) {
    header->relative_error[level].resize(layers);
    for (auto& pair : header->relative_error[level]) {
      for (float& error : pair) {
        error = in.Get<float>();
        if (!(error >= 0))
          return Malformed(absl::StrCat("a relative error of level ", level, " is negative or no number"));
      }
    }
  }
  header->checksums.resize(counts.checksums);
  for (uint64_t& checksum : header->checksums) checksum = in.Get<uint64_t>();
  return in.status("object header");
}

}  // namespace

uint64_t HeaderBytesFor(size_t layers, size_t levels, size_t checksums) {
  uint64_t bytes = kFixedBytes + (layers * 4 + 7) / 8 * 8 + levels * 16 + levels * layers * 8 +
                   checksums * 8 + kChecksumBytes;
  return (bytes + 15) / 16 * 16;
}

std::vector<uint8_t> SerializeHeader(const BlockHeader& header) {
  uint64_t size = HeaderBytesFor(header.codecs.size(), header.levels.size(), header.checksums.size());
  std::vector<uint8_t> bytes;
  bytes.reserve(size);
  ByteWriter out(&bytes);
  out.Put(kMagic);
  out.Put(kVersion);
  out.Put(uint16_t{0});  // flags
  out.Put(static_cast<uint32_t>(size));
  out.Put(kBlockTokens);
  out.Put(header.sink_tokens);
  out.Put(header.identity.index);
  for (uint32_t bound :
       {header.part.layer_begin, header.part.layer_end, header.part.head_begin, header.part.head_end})
    out.Put(bound);
  out.Put(static_cast<uint16_t>(header.rotation));
  out.Put(static_cast<uint16_t>(header.codebook));
  out.Put(static_cast<uint32_t>(header.levels.size()));
  out.Put(header.rotation_seed);
  out.Put(static_cast<uint32_t>(header.checksums.size()));
  out.Put(uint32_t{0});
  for (const Digest& digest :
       {header.fingerprint, header.identity.parent, header.identity.key, header.profile})
    out.Put(digest.bytes);
  for (const LayerCodec& codec : header.codecs) {
    out.Put(static_cast<uint8_t>(codec.codec));
    out.Put(codec.k_bits);
    out.Put(codec.v_bits);
    out.Put(uint8_t{0});
  }
  out.PadTo(8);
  for (const Extent& level : header.levels) {
    out.Put(level.offset);
    out.Put(level.length);
  }
  for (size_t level = 0; level < header.levels.size(); ++level) {
    for (const auto& pair : header.relative_error[level]) {
      out.Put(pair[0]);
      out.Put(pair[1]);
    }
  }
  for (uint64_t checksum : header.checksums) out.Put(checksum);
  bytes.resize(size - kChecksumBytes);
  out.Put(Xxh3(bytes));
  return bytes;
}

absl::StatusOr<uint32_t> HeaderBytes(Bytes prefix) {
  if (prefix.size() < kHeaderPrefixBytes) return Malformed(absl::StrCat("only ", prefix.size(), " bytes"));
  ByteReader in(prefix);
  if (in.Get<uint32_t>() != kMagic) return Malformed("no magic QKV1");
  uint16_t version = in.Get<uint16_t>(), flags = in.Get<uint16_t>();
  if (version != kVersion) {
    return absl::UnimplementedError(
        absl::StrCat("object header: version ", version, " is unknown, ", kVersion, " is read"));
  }
  if (flags != 0)
    return absl::UnimplementedError(absl::StrCat("object header: flags ", flags, " are unknown"));
  uint32_t bytes = in.Get<uint32_t>(), block_tokens = in.Get<uint32_t>();
  if (bytes < HeaderBytesFor(1, 1, 1) || bytes > kMaxHeaderBytes || bytes % 16 != 0) {
    return Malformed(absl::StrCat("it is said to have ", bytes, " bytes"));
  }
  if (block_tokens != kBlockTokens)
    return Malformed(absl::StrCat("block_tokens is ", block_tokens, ", not ", kBlockTokens));
  return bytes;
}

absl::StatusOr<BlockHeader> ParseHeader(Bytes object) {
  QUIRE_ASSIGN_OR_RETURN(uint32_t header_bytes, HeaderBytes(object));
  if (object.size() < header_bytes)
    return Malformed(absl::StrCat("it has ", header_bytes, " bytes, only ", object.size(), " are there"));
  ByteReader in(object.first(header_bytes));
  Bytes covered = object.first(header_bytes - kChecksumBytes);
  ByteReader tail(object.subspan(covered.size(), kChecksumBytes));
  if (tail.Get<uint64_t>() != Xxh3(covered)) return Malformed("checksum mismatch");

  BlockHeader header;
  header.header_bytes = header_bytes;
  in.Skip(kHeaderPrefixBytes);
  QUIRE_ASSIGN_OR_RETURN(Counts counts, ParseFixed(in, &header));
  if (HeaderBytesFor(header.part.layers(), counts.levels, counts.checksums) != header_bytes) {
    return Malformed(absl::StrCat("its counts (", header.part.layers(), " layers, ", counts.levels,
                                  " levels, ", counts.checksums, " checksums) do not add up to ",
                                  header_bytes, " bytes"));
  }
  QUIRE_RETURN_IF_ERROR(ParseTables(in, counts, header_bytes, &header));
  // One way to write a header: this also refuses padding that is not zero.
  if (std::vector<uint8_t> again = SerializeHeader(header);
      !std::equal(again.begin(), again.end(), object.begin())) {
    return Malformed("padding is not zero");
  }
  return header;
}

}  // namespace quire

// Encoding a block into an object of format v1, and reading one: the header, the checksums, the codes.
// The byte format stands in core/block/README.md.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/bytes.h"
#include "core/base/digest.h"
#include "core/block/layout.h"
#include "core/block/parallel.h"
#include "core/block/slice_map.h"
#include "core/codec/query_shape.h"
#include "core/codec/spec.h"

namespace quire {

// Which block an object is. The key chain ties key to parent.
struct BlockIdentity {
  Digest parent;
  Digest key;
  uint32_t index = 0;  // block number within its sequence; block 0 holds the sinks
  friend bool operator==(const BlockIdentity&, const BlockIdentity&) = default;
};

struct BlockHeader {
  Part part;
  BlockIdentity identity;
  Digest fingerprint;
  RotationId rotation = RotationId::kHadamard2;
  uint64_t rotation_seed = 0;
  CodebookId codebook = CodebookId::kLloydMaxSphere;
  Digest profile;  // of a calibrated codec; zero in v1's codecs
  uint32_t header_bytes = 0;
  uint32_t sink_tokens = 0;
  std::vector<Extent> levels;      // all that the encoder made, whether present or not
  std::vector<LayerCodec> codecs;  // per layer of the part
  // [level][layer]{K, V}: Σ‖x−x̂‖²/Σ‖x‖² over the part's heads and all tokens but the sinks, measured at
  // encode.
  std::vector<std::array<float, 2>> relative_error[kMaxLevels];
  std::vector<uint64_t> checksums;  // XXH3-64, by SliceMap::ChecksumIndex
};

// A borrowed tensor of one stream of one layer: element (token t, head h, channel c) is
// data[t·token_stride + h·head_stride + c]. Strides are in elements. Covers the part's heads and all 64
// tokens.
struct StreamView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  ptrdiff_t token_stride = 0;
  ptrdiff_t head_stride = 0;
};
struct MutableStreamView {
  void* data = nullptr;
  DType dtype = DType::kF32;
  ptrdiff_t token_stride = 0;
  ptrdiff_t head_stride = 0;
};
// A layer's streams. A latent layer uses `key` only.
struct LayerView {
  StreamView key, value;
};
struct MutableLayerView {
  MutableStreamView key, value;
};

// One head's codes with the rotation not yet undone, for attention on codes: with y = R·k, a token's key is
//   y[t][c] = k[t·d + c] + k_mean[c],
// its value v[t·d + c] (rotated; no mean). Sink tokens' rows are zero: attention takes those tokens raw.
struct RotatedHead {
  std::span<float> k;       // [64][d]
  std::span<float> k_mean;  // [d]
  std::span<float> v;       // [64][d]
};

// How each layer's and head's queries look: [layer][head].
using QueryShapes = std::vector<std::vector<QueryShape>>;

// Encodes and decodes the blocks of one (layout, part). Immutable and thread-safe after Create; share it.
class BlockCodec {
 public:
  static absl::StatusOr<std::shared_ptr<const BlockCodec>> Create(const Layout& layout, const Part& part);

  const Layout& layout() const;
  const Part& part() const;
  const Digest& fingerprint() const;

  // Encodes 64 tokens. `layers` has one view per layer of the part. Replaces *object's contents with header
  // and all levels. INVALID_ARGUMENT naming layer, head and token for a NaN or an infinity; *object is then
  // empty.
  absl::Status Encode(const CodecSpec& spec, const BlockIdentity& identity, std::span<const LayerView> layers,
                      std::vector<uint8_t>* object) const;

  // The same with the layers spread over the caller's threads, and the errors of tq keys steered past their
  // queries where `shapes` (of every layer and head of the part, of their dims) says how.
  absl::Status Encode(const CodecSpec& spec, const BlockIdentity& identity, std::span<const LayerView> layers,
                      std::vector<uint8_t>* object, ParallelFor parallel,
                      const QueryShapes* shapes = nullptr) const;

  // Many blocks at once, their layers spread over the caller's threads; each job as Encode, with its own
  // outcome.
  struct EncodeJob {
    BlockIdentity identity;
    std::span<const LayerView> layers;
    std::vector<uint8_t>* object = nullptr;
    absl::Status status;  // out
  };
  void EncodeBlocks(const CodecSpec& spec, std::span<EncodeJob> jobs, ParallelFor parallel,
                    const QueryShapes* shapes = nullptr) const;
  // The shape of a layer's queries (layer counted within the part).
  absl::StatusOr<QueryShape> ShapeOf(uint32_t layer, std::span<const double> moments) const;

  // y = R·x and x = Rᵀ·y for vectors of a layer's head dim (attention on codes rotates its queries and
  // outputs). In place is fine.
  void Rotate(uint32_t dim, const float* x, float* y) const;
  void RotateBack(uint32_t dim, const float* y, float* x) const;

 private:
  friend class BlockReader;
  struct Impl;
  explicit BlockCodec(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;

 public:
  ~BlockCodec();
};

// Format v1's fixed sizes, for whoever sizes a buffer before a header is known.
inline constexpr uint32_t kMaxHeaderBytes = 4 << 20;
inline constexpr uint64_t kMaxLevelBytes = uint64_t{1} << 40;

// Bytes of the header of an object with these counts, and the header itself; for the encoder and for tests.
uint64_t HeaderBytesFor(size_t layers, size_t levels, size_t checksums);
std::vector<uint8_t> SerializeHeader(const BlockHeader& header);

// Parses and checks a header alone. `object` may be any prefix that holds the whole header (its length is in
// its first 16 bytes). UNIMPLEMENTED for an unknown version, DATA_LOSS for anything malformed or a wrong
// header checksum.
absl::StatusOr<BlockHeader> ParseHeader(Bytes object);
inline constexpr size_t kHeaderPrefixBytes = 16;
absl::StatusOr<uint32_t> HeaderBytes(Bytes prefix);  // from the first kHeaderPrefixBytes

enum class Destination;  // core/codec/head_codec.h

// A view of one object's bytes (borrowed: they must outlive the reader). Thread-compatible.
class BlockReader {
 public:
  // Checks magic, version, header checksum, fingerprint, part, key and parent, rotation, seed and codebook,
  // and that the length ends on a level boundary. Slice checksums are checked by Verify* (and not again by
  // Decode*). DATA_LOSS on any mismatch, naming the field; UNIMPLEMENTED on a version it does not know.
  static absl::StatusOr<BlockReader> Open(std::shared_ptr<const BlockCodec> codec,
                                          const BlockIdentity& expected, Bytes object);
  // The same with no expected identity (the Codec service, inspection).
  static absl::StatusOr<BlockReader> OpenAny(std::shared_ptr<const BlockCodec> codec, Bytes object);

  const BlockHeader& header() const { return header_; }
  const SliceMap& slices() const { return slices_; }
  int levels() const { return levels_; }  // present in the bytes

  absl::Status Verify() const;                                 // every slice present
  absl::Status VerifyLayer(uint32_t layer, int levels) const;  // layer counted within the part
  // Of one layer in one level the slices of these heads, [begin, end) within the part, and in level 0 its
  // sinks. Needs no bytes but those and the header.
  absl::Status VerifySlices(int level, uint32_t layer, uint32_t head_begin, uint32_t head_end) const;

  // Decodes the first `levels` levels (1…levels()) of one layer into the caller's tensors, sinks exact.
  absl::Status DecodeLayer(uint32_t layer, int levels, const MutableLayerView& out) const;
  // Many layers of many blocks at once, spread over the caller's threads; each job as DecodeLayer, with its
  // own outcome.
  struct DecodeJob {
    const BlockReader* reader = nullptr;
    uint32_t layer = 0;
    int levels = 1;
    MutableLayerView out;
    absl::Status status;  // out
  };
  static void DecodeLayers(std::span<DecodeJob> jobs, ParallelFor parallel);
  // REQUIRES: the layer's codec is tq. See RotatedHead.
  absl::Status DecodeRotated(uint32_t layer, uint32_t head, int levels, const RotatedHead& out) const;
  // Raw sinks of one head, [sink_tokens][d] each.
  absl::Status DecodeSinks(uint32_t layer, uint32_t head, std::span<float> k, std::span<float> v) const;

 private:
  BlockReader() = default;
  absl::Status DecodeLayerTo(Destination destination, uint32_t layer, int levels,
                             const MutableLayerView& out) const;
  size_t DecodedBytes(uint32_t layer, const MutableLayerView& out) const;
  void DecodeFlatHead(uint32_t layer, uint32_t head, const MutableLayerView& out) const;

  std::shared_ptr<const BlockCodec> codec_;
  BlockHeader header_;
  SliceMap slices_;
  Bytes object_;
  int levels_ = 0;
};

}  // namespace quire

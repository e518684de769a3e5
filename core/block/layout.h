// What must agree for KV to be exchangeable, and its fingerprint (DESIGN.md, "Words"; byte form in
// core/block/README.md).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/digest.h"
#include "core/base/dtype.h"

namespace quire {

inline constexpr uint32_t kBlockTokens = 64;   // tokens a block, fixed in v1
inline constexpr uint32_t kMaxSinkTokens = 4;  // first tokens of a sequence that stay raw, in block 0
inline constexpr uint32_t kMaxLayers = 1024;
inline constexpr uint32_t kMaxHeads = 1024;
inline constexpr uint32_t kMaxLayerHeads = 65536;  // heads of all layers together
inline constexpr uint32_t kMaxRopeStateBytes = 4096;

enum class StreamKind : uint8_t { kKey = 0, kValue = 1, kLatent = 2 };  // a latent is coded like a key

struct StreamLayout {
  StreamKind kind = StreamKind::kKey;
  uint32_t heads = 0;
  uint32_t dim = 0;             // d: 16…576, a multiple of 16
  uint32_t sliding_window = 0;  // tokens; 0 = attends to everything
  friend bool operator==(const StreamLayout&, const StreamLayout&) = default;
};

// Either {key, value} with equal heads, or {latent}.
struct LayerLayout {
  std::vector<StreamLayout> streams;

  bool latent() const { return !streams.empty() && streams[0].kind == StreamKind::kLatent; }
  uint32_t heads() const { return streams.empty() ? 0 : streams[0].heads; }
  uint32_t key_dim() const { return streams.empty() ? 0 : streams[0].dim; }       // or the latent's
  uint32_t value_dim() const { return streams.size() < 2 ? 0 : streams[1].dim; }  // 0: latent
  friend bool operator==(const LayerLayout&, const LayerLayout&) = default;
};

enum class RotationId : uint16_t { kHadamard2 = 1 };       // two rounds of (signs, Walsh–Hadamard)
enum class CodebookId : uint16_t { kLloydMaxSphere = 1 };  // exact Lloyd–Max for (1−x²)^((d−3)/2)

// The rotation that layouts take unless they say otherwise: of the first 2²⁰ seeds the one whose rotations
// are the flattest at head sizes 64, 80, 96, 128, 192 and 256 together. Flat: the fourth moment of √d·R's
// entries is small, 2.1 to 2.6 here where a random seed has 3 and an unlucky one, which leaves some channels
// nearly unmixed, 4. At 4 bits that is a third of the divergence (seed 0, unlucky at 64 and 256, against this
// one).
inline constexpr uint64_t kFlatRotationSeed = 880776;

struct Layout {
  Digest model_digest;  // SHA-256 of the weights; of "repository@revision+quantisation" for other engines
  DType dtype = DType::kBf16;
  // Canonical text of everything that changes K after RoPE; "" if K is stored before RoPE.
  std::string rope_state;
  RotationId rotation = RotationId::kHadamard2;
  uint64_t rotation_seed = kFlatRotationSeed;
  CodebookId codebook = CodebookId::kLloydMaxSphere;
  uint32_t block_tokens = kBlockTokens;
  std::vector<LayerLayout> layers;  // only layers that have KV

  // A layout of equal layers {key, value}, the common case.
  static Layout Uniform(const Digest& model_digest, uint32_t layers, uint32_t kv_heads, uint32_t head_dim);

  // INVALID_ARGUMENT naming the field, the limit and the value.
  absl::Status Validate() const;
  // Canonical bytes. Parse accepts exactly what Serialize makes of a valid layout.
  std::vector<uint8_t> Serialize() const;
  static absl::StatusOr<Layout> Parse(Bytes bytes);
  Digest Fingerprint() const;  // SHA-256 of Serialize()

  // Bytes of one block's KV at `dtype` over all layers and heads: the "raw" side of compression ratios.
  uint64_t RawBlockBytes() const;

  friend bool operator==(const Layout&, const Layout&) = default;
};

// The layers [layer_begin, layer_end) and KV heads [head_begin, head_end) that an object holds. Where layers
// have different numbers of heads, the range is meant within each layer: heads that a layer lacks are simply
// not there.
struct Part {
  uint32_t layer_begin = 0, layer_end = 0, head_begin = 0, head_end = 0;

  static Part Whole(const Layout& layout);
  absl::Status Validate(const Layout& layout) const;
  bool Covers(const Part& other) const;
  uint32_t layers() const { return layer_end - layer_begin; }
  uint32_t heads() const { return head_end - head_begin; }
  uint32_t HeadsOf(const LayerLayout& layer) const;  // how many of the part's heads this layer has

  friend bool operator==(const Part&, const Part&) = default;
  friend auto operator<=>(const Part&, const Part&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const Part& p) {
    return H::combine(std::move(h), p.layer_begin, p.layer_end, p.head_begin, p.head_end);
  }
};

}  // namespace quire

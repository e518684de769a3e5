// What a block is to be coded with: the codec spec string and its parsed form.
//
//   spec   = "raw" | "fp8" | name [ ":" bits { "," option } ]        name = "tq" | "tq_prod"
//   bits   = "k" digit "v" digit                                     2…8 each; a name alone means k4v4
//   option = "layers=" layer [ "-" layer ] ":" bits                  each layer at most once
//          | "effort=" digit                                         tq alone, 0…3, at most once
//
// e.g. tq:k6v3,effort=2,layers=0-1:k8v8,layers=29:k8v8. Layers count the layers that have KV, from 0; one
// that no `layers=` names has the bits in front. Without `effort=` streams of up to 4 bits have effort 0,
// those above 2, and the errors of keys are steered where that is known how (steers()). raw and fp8 have one
// form each and take neither bits nor options; a spec has one codec for all layers. qpc is known by name and
// UNIMPLEMENTED. See DESIGN.md, "The codec tq".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace quire {

enum class CodecId : uint8_t { kRaw = 0, kFp8 = 1, kTq = 2, kTqProd = 3, kQpc = 4 };  // values are on disk

std::string_view Name(CodecId id);

// How one layer is coded. Bits are 0 for raw and fp8.
struct LayerCodec {
  CodecId codec = CodecId::kTq;
  uint8_t k_bits = 0;
  uint8_t v_bits = 0;
  friend bool operator==(const LayerCodec&, const LayerCodec&) = default;
};

class CodecSpec {
 public:
  // tq:k4v4
  CodecSpec();
  // INVALID_ARGUMENT with the position (a byte offset into text) of the mistake.
  static absl::StatusOr<CodecSpec> Parse(std::string_view text);

  // The canonical text: Parse(ToString()) gives an equal spec, and equal specs give equal texts.
  std::string ToString() const;
  LayerCodec ForLayer(uint32_t layer) const;
  CodecId codec() const { return base_.codec; }
  // How often the encoder looks for a better scale, for a stream of so many bits: 0…3. Never on disk. Streams
  // of few bits are those whose encoding is to keep up with memory; the others are kept for their fidelity.
  int effort(int bits) const { return effort_.value_or(bits > 4 ? 2 : 0); }
  // Whether keys' errors are steered past the model's queries by an encoder that knows how these look
  // (core/codec/query_shape.h): always but with effort=0.
  bool steers() const { return effort_ != 0; }
  // The last layer that an override names, or -1: lets a caller refuse a spec that a layout has no layer for.
  int64_t last_named_layer() const;

  friend bool operator==(const CodecSpec&, const CodecSpec&) = default;

 private:
  struct Override {
    uint32_t first, last;  // inclusive
    uint8_t k_bits, v_bits;
    friend bool operator==(const Override&, const Override&) = default;
  };
  void Canonicalise();

  LayerCodec base_;
  std::optional<int> effort_;
  std::vector<Override> overrides_;
};

}  // namespace quire

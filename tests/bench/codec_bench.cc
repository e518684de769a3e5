#include "tests/bench/codec_bench.h"

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/block/keys.h"
#include "core/block/object.h"

namespace quire::bench {
namespace {

constexpr uint32_t kLayers = 8, kHeads = 4;
constexpr size_t kRawBytes = 64 << 20;  // beyond the caches, so that memcpy runs at memory speed

// Raw K and V of some blocks, [block][layer][k,v][token][head][d] in bf16, with a per-channel offset in K as models have.
struct RawBlocks {
  std::vector<uint16_t> data;
  uint32_t dim;
  int blocks;
  size_t stream_elements() const { return size_t{kBlockTokens} * kHeads * dim; }

  explicit RawBlocks(uint32_t d) : dim(d), blocks(static_cast<int>(kRawBytes / (kLayers * 4 * stream_elements()))) {
    std::mt19937 generator(7);
    std::normal_distribution<float> normal;
    data.resize(blocks * kLayers * 2 * stream_elements());
    for (size_t i = 0; i < data.size(); ++i) {
      bool key = i / stream_elements() % 2 == 0;
      data[i] = ToBf16(normal(generator) + (key ? 2.0f * std::sin(static_cast<float>(i % d)) : 0.0f));
    }
  }
  template <typename View>
  View Stream(uint16_t* base, int block, uint32_t layer, int which) const {
    return {base + ((block * kLayers + layer) * 2 + which) * stream_elements(), DType::kBf16,
            static_cast<ptrdiff_t>(kHeads * dim), static_cast<ptrdiff_t>(dim)};
  }
};

absl::Status Run(Report& report, uint32_t dim, const std::string& spec_text) {
  Layout layout = Layout::Uniform(Digest{}, kLayers, kHeads, dim);
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<const BlockCodec> codec, BlockCodec::Create(layout, Part::Whole(layout)));
  QUIRE_ASSIGN_OR_RETURN(CodecSpec spec, CodecSpec::Parse(spec_text));
  RawBlocks raw(dim);
  BlockIdentity identity{Digest{}, Digest{}, 1};

  std::vector<uint16_t> copy(raw.data.size());
  double memcpy_seconds =
      MedianSeconds([&] { std::memcpy(copy.data(), raw.data.data(), raw.data.size() * sizeof(uint16_t)); });

  absl::Status failure;
  std::vector<std::vector<uint8_t>> objects(raw.blocks);
  double encode_seconds = MedianSeconds([&] {
    for (int b = 0; b < raw.blocks; ++b) {
      std::vector<LayerView> layers(kLayers);
      for (uint32_t l = 0; l < kLayers; ++l) {
        layers[l] = {raw.Stream<StreamView>(raw.data.data(), b, l, 0), raw.Stream<StreamView>(raw.data.data(), b, l, 1)};
      }
      if (absl::Status s = codec->Encode(spec, identity, layers, &objects[b]); !s.ok()) failure = s;
    }
  }, 3);
  QUIRE_RETURN_IF_ERROR(failure);

  double decode_seconds = MedianSeconds([&] {
    for (int b = 0; b < raw.blocks; ++b) {
      auto reader = BlockReader::OpenAny(codec, objects[b]);
      if (!reader.ok()) {
        failure = reader.status();
        return;
      }
      for (uint32_t l = 0; l < kLayers; ++l) {
        MutableLayerView out{raw.Stream<MutableStreamView>(copy.data(), b, l, 0),
                             raw.Stream<MutableStreamView>(copy.data(), b, l, 1)};
        if (absl::Status s = reader->DecodeLayer(l, reader->levels(), out); !s.ok()) failure = s;
      }
    }
  }, 3);
  QUIRE_RETURN_IF_ERROR(failure);

  double gigabytes = raw.data.size() * sizeof(uint16_t) * 1e-9;
  double ratio = static_cast<double>(raw.data.size()) * sizeof(uint16_t) / (raw.blocks * objects[0].size());
  std::string context = absl::StrCat("d=", dim, ", ", gigabytes, " GB raw, objects ", ratio, " times smaller");
  std::string name = absl::StrCat(spec_text, "/d", dim);
  report.Add({absl::StrCat("encode/", name), gigabytes / encode_seconds, "GB/s raw", "memcpy", gigabytes / memcpy_seconds,
              std::nullopt, context});
  report.Add({absl::StrCat("decode/", name), gigabytes / decode_seconds, "GB/s raw", "memcpy", gigabytes / memcpy_seconds,
              std::nullopt, context});
  return absl::OkStatus();
}

}  // namespace

absl::Status RunCodecBench(Report& report) {
  for (uint32_t dim : {64u, 128u}) {
    for (const char* spec : {"raw", "tq:k2v2", "tq:k3v3", "tq:k4v4", "tq:k8v8"}) {
      QUIRE_RETURN_IF_ERROR(Run(report, dim, spec));
    }
  }
  return absl::OkStatus();
}

}  // namespace quire::bench

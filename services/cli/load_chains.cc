#include "services/cli/load_chains.h"

#include <algorithm>
#include <cstring>
#include <random>

#include "core/base/float16.h"
#include "core/base/status_macros.h"
#include "core/block/keys.h"

namespace quire::cli {
namespace {

uint64_t StreamElements(const StreamLayout& stream) {
  return uint64_t{kBlockTokens} * stream.heads * stream.dim;
}

// A block's raw form: for each layer K then V, each [token][head][d] of the layout's dtype.
std::vector<uint8_t> RandomRaw(const Layout& layout, uint32_t seed) {
  constexpr size_t kPeriod = 1 << 16;
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<uint8_t> period(kPeriod * SizeOf(layout.dtype));
  for (size_t i = 0; i < kPeriod; ++i) StoreElement(layout.dtype, period.data(), i, normal(generator));
  std::vector<uint8_t> raw(layout.RawBlockBytes());
  for (size_t at = 0; at < raw.size(); at += period.size())
    std::memcpy(raw.data() + at, period.data(), std::min(period.size(), raw.size() - at));
  return raw;
}

std::vector<LayerView> Views(const Layout& layout, const std::vector<uint8_t>& raw) {
  std::vector<LayerView> views;
  const uint8_t* at = raw.data();
  for (const LayerLayout& layer : layout.layers) {
    StreamView streams[2];
    for (size_t s = 0; s < layer.streams.size(); ++s) {
      const StreamLayout& stream = layer.streams[s];
      streams[s] = {at, layout.dtype, static_cast<ptrdiff_t>(stream.heads * stream.dim),
                    static_cast<ptrdiff_t>(stream.dim)};
      at += StreamElements(stream) * SizeOf(layout.dtype);
    }
    views.push_back({streams[0], streams[1]});
  }
  return views;
}

}  // namespace

std::vector<BlockIdentity> LoadChain(const Digest& fingerprint, const std::string& salt, uint64_t number,
                                     uint32_t blocks) {
  Digest parent = RootKey(fingerprint, salt, std::to_string(number));
  std::vector<uint32_t> tokens(kBlockTokens);
  std::vector<BlockIdentity> chain;
  for (uint32_t i = 0; i < blocks; ++i) {
    tokens[0] = i;
    chain.push_back({parent, BlockKey(parent, tokens), i});
    parent = chain.back().key;
  }
  return chain;
}

absl::StatusOr<LoadBlocks> LoadBlocks::Create(const Layout& layout, const std::string& spec, bool raw,
                                              uint32_t blocks) {
  LoadBlocks made;
  made.raw_bytes_ = blocks * layout.RawBlockBytes();
  std::vector<uint8_t> values = RandomRaw(layout, 1);
  if (raw) {
    made.bytes_.push_back(std::move(values));
    made.blocks_.resize(blocks);
    return made;
  }
  QUIRE_ASSIGN_OR_RETURN(CodecSpec parsed, CodecSpec::Parse(spec));
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<const BlockCodec> codec,
                         BlockCodec::Create(layout, Part::Whole(layout)));
  std::vector<LayerView> views = Views(layout, values);
  for (uint32_t kind = 0; kind < std::min(blocks, 2u); ++kind) {
    std::vector<uint8_t> object;
    QUIRE_RETURN_IF_ERROR(codec->Encode(parsed, {{}, {}, kind}, views, &object));
    QUIRE_ASSIGN_OR_RETURN(BlockHeader header, ParseHeader(object));
    made.headers_.push_back(std::move(header));
    made.bytes_.push_back(std::move(object));
  }
  while (made.bytes_.size() < blocks) made.bytes_.push_back(made.bytes_[1]);
  made.blocks_.resize(blocks);
  return made;
}

std::span<const store::PutBlock> LoadBlocks::Of(std::span<const BlockIdentity> chain) {
  for (size_t i = 0; i < chain.size(); ++i) {
    if (headers_.empty()) {
      blocks_[i] = {chain[i], bytes_[0]};
      continue;
    }
    BlockHeader& header = headers_[i == 0 ? 0 : 1];
    header.identity = chain[i];
    std::vector<uint8_t> bytes = SerializeHeader(header);
    std::memcpy(bytes_[i].data(), bytes.data(), bytes.size());
    blocks_[i] = {chain[i], bytes_[i]};
  }
  return blocks_;
}

uint64_t LoadBlocks::chain_bytes() const {
  uint64_t sum = 0;
  for (size_t i = 0; i < blocks_.size(); ++i) sum += bytes_[headers_.empty() ? 0 : i].size();
  return sum;
}

}  // namespace quire::cli

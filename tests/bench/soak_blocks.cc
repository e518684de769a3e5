#include "tests/bench/soak_blocks.h"

#include <algorithm>
#include <cstring>
#include <random>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/block/keys.h"
#include "core/codec/spec.h"
#include "services/store/engine/raw_form.h"

namespace quire::bench {
namespace {

constexpr uint32_t kLayers = 2, kHeads = 2, kDim = 64;

std::vector<uint8_t> RawOf(const Layout& layout, const Part& part, const Digest& key) {
  std::vector<uint8_t> raw(store::RawFormBytes(layout, part, layout.dtype));
  uint64_t seed = 0;
  std::memcpy(&seed, key.bytes.data(), sizeof seed);
  std::mt19937_64 random(seed);
  for (size_t e = 0; e < raw.size() / SizeOf(layout.dtype); ++e) {
    StoreElement(layout.dtype, raw.data(), e,
                 static_cast<float>(static_cast<int64_t>(random() >> 40) - (1 << 23)) * 0x1p-23f);
  }
  return raw;
}

absl::StatusOr<SoakChain> MakeChain(const Layout& layout, const BlockCodec& codec, uint32_t tenant,
                                    uint32_t number) {
  SoakChain chain;
  chain.tenant = SoakTenant(tenant);
  std::vector<uint32_t> tokens(size_t{kSoakChainBlocks} * kBlockTokens, number);
  Digest parent = RootKey(layout.Fingerprint(), absl::StrCat("soak", tenant));
  chain.keys = BlockKeys(parent, tokens);
  Part part = Part::Whole(layout);
  bool by_store = number % 4 == 1;
  QUIRE_ASSIGN_OR_RETURN(CodecSpec spec, CodecSpec::Parse(number % 4 == 2 ? "raw" : "tq:k4v4"));
  if (by_store) chain.encode = "tq:k4v4";
  for (uint32_t i = 0; i < kSoakChainBlocks; ++i) {
    chain.identities.push_back({parent, chain.keys[i], i});
    parent = chain.keys[i];
    std::vector<uint8_t> raw = RawOf(layout, part, chain.keys[i]);
    QUIRE_RETURN_IF_ERROR(codec.Encode(spec, chain.identities[i],
                                       store::RawFormViews(layout, part, layout.dtype, raw.data()),
                                       &chain.objects.emplace_back()));
    if (by_store) chain.raw.push_back(std::move(raw));
  }
  return chain;
}

}  // namespace

std::string SoakTenant(uint32_t number) { return absl::StrCat("soak-", number); }

std::vector<store::PutBlock> SoakChain::ToPut(size_t from) const {
  std::vector<store::PutBlock> blocks;
  for (size_t i = from; i < identities.size(); ++i)
    blocks.push_back({identities[i], encode.empty() ? objects[i] : raw[i]});
  return blocks;
}

bool SoakChain::IsRight(size_t block, Bytes object) const {
  const std::vector<uint8_t>& whole = objects[block];
  return !object.empty() && object.size() <= whole.size() &&
         std::equal(object.begin(), object.end(), whole.begin());
}

absl::StatusOr<SoakBlocks> MakeSoakBlocks(uint32_t chains) {
  SoakBlocks blocks;
  Digest model;
  model.bytes.fill(0x50);
  blocks.layout = Layout::Uniform(model, kLayers, kHeads, kDim);
  QUIRE_ASSIGN_OR_RETURN(std::shared_ptr<const BlockCodec> codec,
                         BlockCodec::Create(blocks.layout, Part::Whole(blocks.layout)));
  for (uint32_t number = 0; number < chains; ++number) {
    for (uint32_t tenant = 0; tenant < kSoakTenants; ++tenant) {
      QUIRE_ASSIGN_OR_RETURN(blocks.chains.emplace_back(), MakeChain(blocks.layout, *codec, tenant, number));
    }
  }
  return blocks;
}

}  // namespace quire::bench

// A short chain of blocks with everything that can be put of them.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "core/block/keys.h"
#include "core/block/object.h"
#include "services/store/engine/raw_form.h"
#include "tests/fuzz/input.h"

namespace quire::fuzz {

struct Chain {
  Layout layout;
  std::vector<BlockIdentity> identities;
  std::vector<std::vector<uint8_t>> raw, objects;
};

// The same for the same arguments.
inline Chain MakeChain(const Layout& layout, const std::string& spec, uint32_t blocks) {
  Chain chain{layout, {}, {}, {}};
  auto codec = *BlockCodec::Create(layout, Part::Whole(layout));
  std::mt19937 random(1);
  Digest parent = RootKey(layout.Fingerprint(), "s");
  for (uint32_t i = 0; i < blocks; ++i) {
    std::vector<uint32_t> tokens(kBlockTokens, i);
    chain.identities.push_back({parent, BlockKey(parent, tokens), i});
    parent = chain.identities.back().key;
    std::vector<uint8_t>& raw =
        chain.raw.emplace_back(store::RawFormBytes(layout, Part::Whole(layout), layout.dtype));
    for (size_t e = 0; e < raw.size() / SizeOf(layout.dtype); ++e)
      StoreElement(layout.dtype, raw.data(), e, static_cast<float>(random()) * 0x1p-32f - 0.5f);
    absl::Status status =
        codec->Encode(*CodecSpec::Parse(spec), chain.identities.back(),
                      store::RawFormViews(layout, Part::Whole(layout), layout.dtype, raw.data()),
                      &chain.objects.emplace_back());
    QUIRE_FUZZ_CHECK(status.ok());
  }
  return chain;
}

}  // namespace quire::fuzz

// The key chain, layouts (which their fingerprints begin it with) and codec specs.
#include <string>
#include <vector>

#include "core/block/keys.h"
#include "core/block/layout.h"
#include "core/block/slice_map.h"
#include "core/codec/spec.h"
#include "tests/fuzz/input.h"

namespace quire::fuzz {
namespace {

void RunChain(Input input) {
  Digest fingerprint;
  Bytes seed = input.Take(4);
  std::copy(seed.begin(), seed.end(), fingerprint.bytes.begin());
  Bytes salt = input.Take(input.Byte()), extra = input.Take(input.Byte());
  std::vector<uint32_t> tokens;
  for (size_t repeat = input.Byte() + 1; !input.empty();) {
    uint32_t token = input.Short() | uint32_t{input.Short()} << 16;
    tokens.insert(tokens.end(), repeat, token);
  }
  Digest root = RootKey(fingerprint, AsString(salt), AsString(extra));
  std::vector<Digest> keys = BlockKeys(root, tokens);
  QUIRE_FUZZ_CHECK(keys.size() == tokens.size() / kBlockTokens);
  Digest parent = root;
  for (size_t i = 0; i < keys.size(); ++i) {
    std::span<const uint32_t> block = std::span(tokens).subspan(i * kBlockTokens, kBlockTokens);
    QUIRE_FUZZ_CHECK(keys[i] == BlockKey(parent, block));
    QUIRE_FUZZ_CHECK(Digest::FromHex(keys[i].Hex()) == keys[i]);
    parent = keys[i];
  }
  // Where the salt ends matters.
  if (!salt.empty()) {
    std::string moved(AsString(salt)), more(AsString(extra));
    more.insert(more.begin(), moved.back());
    moved.pop_back();
    QUIRE_FUZZ_CHECK(RootKey(fingerprint, moved, more) != root);
  }
}

void RunLayout(Bytes bytes) {
  absl::StatusOr<Layout> layout = Layout::Parse(bytes);
  if (!layout.ok()) return;
  QUIRE_FUZZ_CHECK(layout->Validate().ok());
  std::vector<uint8_t> again = layout->Serialize();
  QUIRE_FUZZ_CHECK(std::equal(again.begin(), again.end(), bytes.begin(), bytes.end()));
  QUIRE_FUZZ_CHECK(layout->Fingerprint() == Sha256().Update(AsString(bytes)).Finish());
  Part whole = Part::Whole(*layout);
  QUIRE_FUZZ_CHECK(whole.Validate(*layout).ok());
  absl::StatusOr<SliceMap> map =
      SliceMap::Create(*layout, whole, LayerCodecs(CodecSpec(), *layout, whole), kMaxSinkTokens);
  QUIRE_FUZZ_CHECK(map.ok());
}

void RunSpec(Bytes bytes) {
  absl::StatusOr<CodecSpec> spec = CodecSpec::Parse(std::string(AsString(bytes)));
  if (!spec.ok()) return;
  absl::StatusOr<CodecSpec> again = CodecSpec::Parse(spec->ToString());
  QUIRE_FUZZ_CHECK(again.ok() && again->ToString() == spec->ToString());
}

}  // namespace
}  // namespace quire::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  quire::fuzz::Input input(data, size);
  switch (input.Byte() % 3) {
    case 0:
      quire::fuzz::RunChain(input);
      break;
    case 1:
      quire::fuzz::RunLayout(input.Rest());
      break;
    default:
      quire::fuzz::RunSpec(input.Rest());
  }
  return 0;
}

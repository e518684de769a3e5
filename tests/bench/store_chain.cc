#include "tests/bench/store_chain.h"

#include <algorithm>
#include <random>

#include "core/base/status_macros.h"
#include "core/block/keys.h"

namespace quire::bench {
namespace {

constexpr uint64_t kWriteBytes = 1 << 20;

}  // namespace

absl::StatusOr<Chain> MakeChain(std::string_view salt) {
  Chain chain;
  chain.layout =
      Layout::Uniform(Sha256().Update("quire-bench").Finish(), kChainLayers, kChainHeads, kChainDim);
  QUIRE_ASSIGN_OR_RETURN(auto codec, BlockCodec::Create(chain.layout, Part::Whole(chain.layout)));
  chain.root = RootKey(codec->fingerprint(), salt);
  std::vector<float> values(size_t{kBlockTokens} * kChainHeads * kChainDim);
  std::mt19937 generator(3);
  std::normal_distribution<float> normal;
  for (float& v : values) v = normal(generator);
  StreamView stream{values.data(), DType::kF32, kChainHeads * kChainDim, kChainDim};
  std::vector<LayerView> layers(kChainLayers, LayerView{stream, stream});

  Digest parent = chain.root;
  for (uint32_t i = 0; i < kChainBlocks; ++i) {
    std::vector<uint32_t> tokens(kBlockTokens, i);
    BlockIdentity identity{parent, BlockKey(parent, tokens), i};
    chain.objects.emplace_back();
    QUIRE_RETURN_IF_ERROR(codec->Encode(CodecSpec(), identity, layers, &chain.objects.back()));
    chain.identities.push_back(identity);
    chain.announces.push_back({identity, chain.objects.back().size()});
    chain.bytes += chain.objects.back().size();
    parent = identity.key;
  }
  return chain;
}

std::vector<Digest> Chain::keys() const {
  std::vector<Digest> keys;
  for (const BlockIdentity& identity : identities) keys.push_back(identity.key);
  return keys;
}

std::vector<store::PutBlock> Chain::blocks() const {
  std::vector<store::PutBlock> blocks;
  for (size_t i = 0; i < objects.size(); ++i) blocks.push_back({identities[i], objects[i]});
  return blocks;
}

absl::Status PutBlocks(store::RemoteStore& remote, const store::Namespace& ns,
                       std::span<const store::PutBlock> blocks) {
  std::vector<store::PutOutcome> outcomes;
  QUIRE_RETURN_IF_ERROR(remote.PutBlocks(ns, blocks, {}, &outcomes));
  for (const store::PutOutcome& outcome : outcomes) QUIRE_RETURN_IF_ERROR(outcome.status);
  return absl::OkStatus();
}

absl::Status PutAll(store::KvStore& kv, const store::Namespace& ns, const Chain& chain) {
  QUIRE_ASSIGN_OR_RETURN(auto session, kv.BeginPut(ns, chain.announces, {}));
  for (uint32_t block : session->wanted()) {
    Bytes object = chain.objects[block];
    for (uint64_t at = 0; at < object.size(); at += kWriteBytes) {
      QUIRE_RETURN_IF_ERROR(
          session->Write(block, at, object.subspan(at, std::min(kWriteBytes, object.size() - at))));
    }
    QUIRE_RETURN_IF_ERROR(session->Commit(block).status());
  }
  return absl::OkStatus();
}

absl::Status GetAll(store::KvStore& kv, const store::Namespace& ns, const Chain& chain) {
  store::GetSink sink;
  sink.on_block = [](uint32_t, Bytes) { return absl::OkStatus(); };
  sink.on_miss = [](uint32_t, const absl::Status& why) { return why; };
  return kv.Get(ns, chain.identities, {}, sink);
}

}  // namespace quire::bench

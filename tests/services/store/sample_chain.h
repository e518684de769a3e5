// Chains of small real blocks: 2 layers, 2 KV heads of 64, filled with random numbers.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "core/block/keys.h"
#include "core/block/object.h"
#include "gtest/gtest.h"
#include "services/store/api/kv_store.h"
#include "services/store/engine/raw_form.h"

namespace quire::store {

inline Layout SampleLayout(uint32_t layers = 2) {
  Digest model;
  model.bytes.fill(0x5A);
  return Layout::Uniform(model, layers, /*kv_heads=*/2, /*head_dim=*/64);
}

// One chain of blocks of one layout: identities, raw KV and objects of each.
struct SampleChain {
  Layout layout;
  Part part;
  Digest fingerprint;
  std::shared_ptr<const BlockCodec> codec;
  std::vector<BlockIdentity> identities;
  std::vector<std::vector<uint8_t>> raw;  // the raw form at the layout's dtype
  std::vector<std::vector<uint8_t>> objects;

  SampleChain(const Layout& of, uint32_t blocks, const std::string& spec = "tq:k4v4", uint32_t seed = 1,
              Part part_of = {})
      : layout(of), part(part_of == Part{} ? Part::Whole(of) : part_of), fingerprint(of.Fingerprint()) {
    codec = *BlockCodec::Create(layout, part);
    std::mt19937 random(seed);
    std::vector<uint32_t> tokens(blocks * kBlockTokens);
    for (uint32_t& token : tokens) token = static_cast<uint32_t>(random() % 1000);
    Digest parent = RootKey(fingerprint, "salt");
    std::vector<Digest> keys = BlockKeys(parent, tokens);
    for (uint32_t i = 0; i < blocks; ++i) {
      identities.push_back({parent, keys[i], i});
      parent = keys[i];
      std::vector<uint8_t>& block = raw.emplace_back(RawFormBytes(layout, part, layout.dtype));
      for (size_t e = 0; e < block.size() / SizeOf(layout.dtype); ++e)
        StoreElement(layout.dtype, block.data(), e, static_cast<float>(random()) * 0x1p-32f - 0.5f);
      EXPECT_TRUE(codec
                      ->Encode(*CodecSpec::Parse(spec), identities[i],
                               RawFormViews(layout, part, layout.dtype, block.data()),
                               &objects.emplace_back())
                      .ok());
    }
  }

  Namespace ns(const std::string& tenant = "") const { return {tenant, fingerprint}; }
  std::vector<Digest> keys() const {
    std::vector<Digest> out;
    for (const BlockIdentity& identity : identities) out.push_back(identity.key);
    return out;
  }
  std::vector<BlockAnnounce> announces() const {
    std::vector<BlockAnnounce> out;
    for (size_t i = 0; i < identities.size(); ++i) out.push_back({identities[i], objects[i].size()});
    return out;
  }
  std::vector<BlockAnnounce> raw_announces() const {
    std::vector<BlockAnnounce> out;
    for (size_t i = 0; i < identities.size(); ++i) out.push_back({identities[i], raw[i].size()});
    return out;
  }
};

// Writes a block in two pieces and commits it.
inline absl::StatusOr<uint64_t> WriteAndCommit(PutSession& session, uint32_t block, Bytes bytes) {
  size_t half = bytes.size() / 2;
  if (absl::Status status = session.Write(block, 0, bytes.first(half)); !status.ok()) return status;
  if (absl::Status status = session.Write(block, half, bytes.subspan(half)); !status.ok()) return status;
  return session.Commit(block);
}

// Puts the whole chain; the first failure, if any.
inline absl::Status PutChain(KvStore& store, const SampleChain& chain, const std::string& tenant = "") {
  absl::StatusOr<Digest> fingerprint = store.RegisterLayout(chain.layout);
  if (!fingerprint.ok()) return fingerprint.status();
  PutOptions options;
  options.part = chain.part;
  absl::StatusOr<std::unique_ptr<PutSession>> session =
      store.BeginPut(chain.ns(tenant), chain.announces(), options);
  if (!session.ok()) return session.status();
  for (uint32_t i : (*session)->wanted()) {
    if (auto stored = WriteAndCommit(**session, i, chain.objects[i]); !stored.ok()) return stored.status();
  }
  return absl::OkStatus();
}

// What a Get handed out, by block.
struct Gotten {
  absl::Status status;
  std::vector<std::vector<uint8_t>> objects;
  std::vector<absl::StatusCode> misses;  // kOk where the block came
  int callbacks = 0;
};
inline Gotten GetAll(KvStore& store, const Namespace& ns, std::span<const BlockIdentity> blocks,
                     const GetOptions& options = {}) {
  Gotten gotten;
  gotten.objects.resize(blocks.size());
  gotten.misses.resize(blocks.size());
  GetSink sink;
  sink.on_block = [&](uint32_t i, Bytes object) {
    gotten.objects[i].assign(object.begin(), object.end());
    ++gotten.callbacks;
    return absl::OkStatus();
  };
  sink.on_miss = [&](uint32_t i, const absl::Status& why) {
    gotten.misses[i] = why.code();
    ++gotten.callbacks;
    return absl::OkStatus();
  };
  gotten.status = store.Get(ns, blocks, options, sink);
  return gotten;
}

inline uint32_t StoredPrefix(KvStore& store, const SampleChain& chain, const std::string& tenant = "",
                             Part part = {}) {
  LookupOptions options;
  options.part = part;
  absl::StatusOr<LookupResult> result = store.Lookup(chain.ns(tenant), chain.keys(), options);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? result->prefix_blocks : 0;
}

}  // namespace quire::store

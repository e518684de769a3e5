#include "core/model/decoder_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "tests/core/model/gguf_builder.h"

namespace quire {
namespace {

using testing::HasSubstr;

absl::StatusOr<DecoderConfig> Read(const GgufBuilder& builder) {
  std::vector<uint8_t> bytes = builder.Build();
  auto file = GgufFile::Parse(bytes);
  if (!file.ok()) return file.status();
  return DecoderConfig::FromGguf(**file);
}

void ExpectRefused(const GgufBuilder& builder, absl::StatusCode code, const std::string& words) {
  absl::Status status = Read(builder).status();
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(words));
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

TEST(DecoderConfig, SmallModelWithDefaults) {
  auto config = Read(SmallLlama());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->name, "small");
  EXPECT_EQ(config->layers, 1u);
  EXPECT_EQ(config->heads, 2u);
  EXPECT_EQ(config->kv_heads, 1u);
  EXPECT_EQ(config->head_dim, 16u);
  EXPECT_EQ(config->rope_dims, 16u);
  EXPECT_EQ(config->rope_base, 10000.0f);
  EXPECT_EQ(config->vocabulary, 8u);
  EXPECT_EQ(config->context, 128u);
  EXPECT_TRUE(config->tied_output);
  EXPECT_FALSE(Read(SmallLlama().Zeros("output.weight", GgmlType::kQ8_0, {8, 32}))->tied_output);
}

TEST(DecoderConfig, MissingKeysAndTensorsAreNamed) {
  for (std::string key :
       {"llama.block_count", "llama.context_length", "llama.embedding_length", "llama.feed_forward_length",
        "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon", "token_embd.weight",
        "blk.0.attn_norm.weight", "blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight",
        "blk.0.attn_output.weight", "blk.0.ffn_norm.weight", "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight",
        "blk.0.ffn_down.weight", "output_norm.weight"}) {
    ExpectRefused(SmallLlama(key), kInvalid, "'" + key + "' is missing");
  }
}

TEST(DecoderConfig, WrongShapesAreNamed) {
  GgufBuilder small = SmallLlama();
  for (size_t i = 0; i < small.tensors().size(); ++i) {
    GgufBuilder b = SmallLlama();
    auto& tensor = b.tensors()[i];
    uint64_t more = tensor.shape.front() + 32;
    tensor.data.resize(tensor.data.size() / tensor.shape.front() * more);
    tensor.shape.front() = more;
    absl::Status status = Read(b).status();
    EXPECT_EQ(status.code(), kInvalid) << tensor.name << status;
  }
  ExpectRefused(SmallLlama("blk.0.attn_k.weight").Zeros("blk.0.attn_k.weight", GgmlType::kF32, {32, 32}),
                kInvalid, "tensor 'blk.0.attn_k.weight' has shape [32, 32], wanted [16, 32]");
  ExpectRefused(SmallLlama("output_norm.weight").Zeros("output_norm.weight", GgmlType::kF32, {1, 32}),
                kInvalid, "tensor 'output_norm.weight' has shape [1, 32], wanted [32]");
}

TEST(DecoderConfig, ImpossibleValuesAreNamed) {
  ExpectRefused(SmallLlama("llama.block_count").U32("llama.block_count", 0), kInvalid,
                "'llama.block_count' is 0");
  ExpectRefused(SmallLlama("llama.block_count").U32("llama.block_count", 5000), kInvalid,
                "the limit is 1024");
  ExpectRefused(SmallLlama("llama.block_count").U32("llama.block_count", ~0u), kInvalid,
                "'llama.block_count' is 4294967295");
  ExpectRefused(SmallLlama("llama.attention.head_count_kv").U32("llama.attention.head_count_kv", 3), kInvalid,
                "no multiple of the 3");
  ExpectRefused(SmallLlama("llama.attention.head_count").U32("llama.attention.head_count", 1000000), kInvalid,
                "head_count");
  ExpectRefused(SmallLlama().U32("llama.rope.dimension_count", 18), kInvalid,
                "'llama.rope.dimension_count' is 18");
  ExpectRefused(SmallLlama().U32("llama.rope.dimension_count", 15), kInvalid,
                "'llama.rope.dimension_count' is 15");
  ExpectRefused(SmallLlama().F32("llama.rope.freq_base", -1.0f), kInvalid, "'llama.rope.freq_base' is -1");
  ExpectRefused(SmallLlama().F32("llama.rope.freq_base", std::numeric_limits<float>::infinity()), kInvalid,
                "'llama.rope.freq_base'");
  ExpectRefused(SmallLlama().U32("llama.vocab_size", 9), kInvalid,
                "'llama.vocab_size' is 9, the embedding has 8 rows");
  ExpectRefused(SmallLlama("token_embd.weight").Zeros("token_embd.weight", GgmlType::kF32, {9, 32}), kInvalid,
                "has 8 tokens, the embedding has 9");
}

TEST(DecoderConfig, WhatIsNotSupportedIsRefusedByName) {
  GgufBuilder qwen;
  qwen.String("general.architecture", "qwen2");
  ExpectRefused(qwen, kUnimplemented, "architecture 'qwen2'");
  ExpectRefused(SmallLlama().String("llama.rope.scaling.type", "yarn"), kUnimplemented,
                "'llama.rope.scaling.type' = yarn");
  ExpectRefused(SmallLlama().F32("llama.rope.scaling.factor", 4.0f), kUnimplemented,
                "'llama.rope.scaling.factor' = 4");
  ExpectRefused(SmallLlama().U32("llama.expert_count", 8), kUnimplemented, "'llama.expert_count' = 8");
  ExpectRefused(SmallLlama().U32("llama.attention.sliding_window", 4096), kUnimplemented,
                "'llama.attention.sliding_window' = 4096");
  ExpectRefused(SmallLlama().F32("llama.attention.something_new", 1.0f), kUnimplemented,
                "'llama.attention.something_new'");
  ExpectRefused(SmallLlama().U32("llama.attention.value_length", 32), kUnimplemented, "value heads of 32");
  ExpectRefused(SmallLlama().Zeros("rope_freqs.weight", GgmlType::kF32, {8}), kUnimplemented,
                "'rope_freqs.weight'");
  ExpectRefused(SmallLlama().Zeros("blk.0.attn_q.bias", GgmlType::kF32, {32}), kUnimplemented,
                "'blk.0.attn_q.bias'");
  ExpectRefused(SmallLlama("llama.attention.head_count_kv").I32s("llama.attention.head_count_kv", {1}),
                kUnimplemented, "'llama.attention.head_count_kv' differs from layer to layer");
  ExpectRefused(SmallLlama("llama.attention.head_count").U32("llama.attention.head_count", 4), kUnimplemented,
                "heads of 8 dimensions");
  ExpectRefused(SmallLlama().Scalar("split.count", GgufBuilder::kU16, uint16_t{3}), kUnimplemented,
                "split into 3 files");
  // Stated and off is fine.
  EXPECT_TRUE(Read(SmallLlama().String("llama.rope.scaling.type", "none").U32("llama.expert_count", 0)).ok());
}

TEST(DecoderConfig, RopeStateHoldsWhateverChangesKeys) {
  auto state = [](const GgufBuilder& b) { return Read(b)->KvLayout(Digest{}).rope_state; };
  std::string plain = state(SmallLlama());
  EXPECT_EQ(plain, "rope=adjacent;dims=16;base=10000;scaling=none;rms_epsilon=1e-05");
  EXPECT_EQ(state(SmallLlama().F32("llama.rope.freq_base", 10000.0f).U32("llama.rope.dimension_count", 16)),
            plain);
  EXPECT_NE(state(SmallLlama().F32("llama.rope.freq_base", 10001.0f)), plain);
  EXPECT_NE(state(SmallLlama().U32("llama.rope.dimension_count", 8)), plain);
  EXPECT_NE(state(SmallLlama("llama.attention.layer_norm_rms_epsilon")
                      .F32("llama.attention.layer_norm_rms_epsilon", 1e-6f)),
            plain);
}

TEST(DecoderConfig, Gemma3HasLocalAndGlobalLayers) {
  auto config = Read(SmallGemma3());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->family, ModelFamily::kGemma3);
  EXPECT_EQ(config->head_dim, 48u);
  EXPECT_EQ(config->rope_dims, 48u);
  EXPECT_EQ(config->rope_base, 1e6f);
  EXPECT_EQ(config->local_rope_base, 1e4f);
  EXPECT_EQ(config->score_scale, 1 / std::sqrt(48.0));
  EXPECT_TRUE(config->IsLocal(0));
  EXPECT_FALSE(config->IsLocal(1));
  EXPECT_TRUE(config->IsLocal(2));
  Layout layout = config->KvLayout(Digest{});
  EXPECT_TRUE(layout.Validate().ok()) << layout.Validate();
  EXPECT_EQ(layout.rope_state,
            "rope=halves;dims=48;base=1e+06;local_base=10000;scaling=none;rms_epsilon=1e-06");
  for (uint32_t layer : {0u, 1u, 2u}) {
    for (const StreamLayout& stream : layout.layers[layer].streams)
      EXPECT_EQ(stream.sliding_window, layer == 1 ? 0u : 20u);
  }
  // Where the file doesn't say, every sixth layer is global.
  config = Read(SmallGemma3("attention.sliding_window_pattern"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->IsLocal(1));
  EXPECT_TRUE(config->IsLocal(4));
  EXPECT_FALSE(config->IsLocal(5));
}

TEST(DecoderConfig, Gemma3ScalesPositionsOfGlobalLayersLinearly) {
  GgufBuilder scaled = SmallGemma3();
  scaled.String("gemma3.rope.scaling.type", "linear").F32("gemma3.rope.scaling.factor", 8.0f);
  auto config = Read(scaled);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope_factor, 8.0f);
  EXPECT_THAT(config->KvLayout(Digest{}).rope_state, HasSubstr(";scaling=linear:8;"));
  ExpectRefused(SmallGemma3().String("gemma3.rope.scaling.type", "yarn"), kUnimplemented,
                "'gemma3.rope.scaling.type' = yarn");
}

TEST(DecoderConfig, Gemma3NeedsItsOwnFieldsAndTensors) {
  ExpectRefused(SmallGemma3("attention.sliding_window"), kInvalid,
                "'gemma3.attention.sliding_window' is missing");
  for (std::string name : {"attn_q_norm", "attn_k_norm", "post_attention_norm", "post_ffw_norm"}) {
    ExpectRefused(SmallGemma3("blk.1." + name), kInvalid, "'blk.1." + name + ".weight' is missing");
  }
  ExpectRefused(SmallGemma3().F32("gemma3.final_logit_softcapping", 30.0f), kUnimplemented,
                "'gemma3.final_logit_softcapping' = 30");
  ExpectRefused(SmallLlama().Zeros("blk.0.attn_q_norm.weight", GgmlType::kF32, {16}), kUnimplemented,
                "'blk.0.attn_q_norm.weight'");
}

TEST(DecoderConfig, RealModel) {
  const char* path = std::getenv("QUIRE_MODEL");
  ASSERT_NE(path, nullptr) << "ctest sets QUIRE_MODEL";
  auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  auto config = DecoderConfig::FromGguf(**file);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->layers, 30u);
  EXPECT_EQ(config->heads, 9u);
  EXPECT_EQ(config->kv_heads, 3u);
  EXPECT_EQ(config->head_dim, 64u);
  EXPECT_EQ(config->hidden, 576u);
  EXPECT_EQ(config->intermediate, 1536u);
  EXPECT_EQ(config->vocabulary, 49152u);
  EXPECT_EQ(config->context, 8192u);
  EXPECT_EQ(config->rope_base, 100000.0f);
  EXPECT_TRUE(config->tied_output);
  Layout layout = config->KvLayout((*file)->WeightsDigest());
  EXPECT_TRUE(layout.Validate().ok()) << layout.Validate();
  EXPECT_EQ(layout.layers.size(), 30u);
  EXPECT_EQ(layout.dtype, DType::kBf16);
}

}  // namespace
}  // namespace quire

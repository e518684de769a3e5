// A Gemma 3 of three layers (local, global, local) with made-up weights, as golden_gemma3.py computes it.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "tests/core/model/gguf_builder.h"

namespace quire::worker {

struct TinyGemma3 {
  uint64_t layers = 3, hidden = 64, inner = 96, heads = 4, kv_heads = 2, d = 32, vocabulary = 300;
  uint32_t window = 70, global_every = 2;

  std::vector<uint8_t> Build() {
    Metadata();
    Tensor("token_embd", {vocabulary, hidden}, 0.6f, 0);
    Tensor("output_norm", {hidden}, 0.5f, 1);
    for (uint64_t i = 0; i < layers; ++i) {
      const std::string p = "blk." + std::to_string(i) + ".";
      Tensor(p + "attn_norm", {hidden}, 0.5f, 1);
      Tensor(p + "attn_q", {heads * d, hidden}, 0.25f, 0);
      Tensor(p + "attn_k", {kv_heads * d, hidden}, 0.25f, 0);
      Tensor(p + "attn_v", {kv_heads * d, hidden}, 0.25f, 0);
      Tensor(p + "attn_output", {hidden, heads * d}, 0.25f, 0);
      Tensor(p + "attn_q_norm", {d}, 0.5f, 1.5f);
      Tensor(p + "attn_k_norm", {d}, 0.5f, 1.5f);
      Tensor(p + "post_attention_norm", {hidden}, 0.5f, 3);
      Tensor(p + "ffn_norm", {hidden}, 0.5f, 1);
      Tensor(p + "ffn_gate", {inner, hidden}, 0.25f, 0);
      Tensor(p + "ffn_up", {inner, hidden}, 0.25f, 0);
      Tensor(p + "ffn_down", {hidden, inner}, 0.25f, 0);
      Tensor(p + "post_ffw_norm", {hidden}, 0.5f, 3);
    }
    return builder_.Build();
  }

 private:
  void Metadata() {
    auto u32 = [&](const std::string& name, uint64_t v) {
      builder_.U32("gemma3." + name, static_cast<uint32_t>(v));
    };
    builder_.String("general.architecture", "gemma3").String("general.name", "tiny");
    u32("block_count", layers);
    u32("context_length", 4096);
    u32("embedding_length", hidden);
    u32("feed_forward_length", inner);
    u32("attention.head_count", heads);
    u32("attention.head_count_kv", kv_heads);
    u32("attention.key_length", d);
    u32("attention.value_length", d);
    u32("attention.sliding_window", window);
    u32("attention.sliding_window_pattern", global_every);
    builder_.F32("gemma3.attention.layer_norm_rms_epsilon", 1e-6f).F32("gemma3.rope.freq_base", 1e6f);
    builder_.String("gemma3.rope.scaling.type", "linear").F32("gemma3.rope.scaling.factor", 8.0f);
    std::vector<std::string> tokens{"<unk>"};
    std::vector<int32_t> types{2};
    std::vector<float> scores(vocabulary, -1.0f);
    for (uint64_t i = 1; i < vocabulary; ++i) {
      tokens.push_back("t" + std::to_string(i));
      types.push_back(1);
    }
    builder_.String("tokenizer.ggml.model", "llama").Strings("tokenizer.ggml.tokens", tokens);
    builder_.I32s("tokenizer.ggml.token_type", types).F32s("tokenizer.ggml.scores", scores);
    builder_.Bool("tokenizer.ggml.add_bos_token", false);
  }

  static uint64_t Mix(uint64_t x) {  // the finaliser of splitmix64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
    return x ^ (x >> 31);
  }

  void Tensor(const std::string& name, const std::vector<uint64_t>& shape, float scale, float offset) {
    uint64_t count = 1;
    for (uint64_t size : shape) count *= size;
    std::vector<float> values(count);
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t bits = Mix(((next_tensor_ << 32) + i + 1) * 0x9E3779B97F4A7C15) >> 40;
      const float value = (static_cast<float>(bits) - 8388608.0f) / 8388608.0f;
      values[i] = value * scale + offset;
    }
    ++next_tensor_;
    std::vector<uint8_t> data(count * sizeof(float));
    std::memcpy(data.data(), values.data(), data.size());
    builder_.Add({.name = name + ".weight",
                  .type = static_cast<uint32_t>(GgmlType::kF32),
                  .shape = shape,
                  .data = std::move(data),
                  .offset = {},
                  .claimed_dimensions = {}});
  }

  GgufBuilder builder_;
  uint64_t next_tensor_ = 0;
};

}  // namespace quire::worker

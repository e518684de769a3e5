// Writes GGUF files byte by byte, true or lying, for tests. Independent of the reader: the layout is written
// out here once more.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/bytes.h"
#include "core/model/gguf.h"

namespace quire {

class GgufBuilder {
 public:
  // GGUF's numbers of value types.
  enum : uint32_t { kU8 = 0, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

  // What a lying file claims instead of the truth.
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<uint64_t> claimed_tensors, claimed_pairs;
  uint64_t alignment = 32;  // that data is laid out with; state it with U32("general.alignment", …)
  size_t missing_data = 0;  // bytes cut off at the end

  // A metadata pair whose payload is given as bytes.
  GgufBuilder& Raw(std::string_view key, uint32_t type, const std::vector<uint8_t>& payload) {
    ByteWriter w(&pairs_);
    PutString(&w, key);
    w.Put(type);
    w.PutBytes(payload);
    ++pair_count_;
    return *this;
  }
  template <typename T>
  GgufBuilder& Scalar(std::string_view key, uint32_t type, T value) {
    std::vector<uint8_t> payload;
    ByteWriter(&payload).Put(value);
    return Raw(key, type, payload);
  }
  GgufBuilder& U32(std::string_view key, uint32_t v) { return Scalar(key, kU32, v); }
  GgufBuilder& F32(std::string_view key, float v) { return Scalar(key, kF32, v); }
  GgufBuilder& Bool(std::string_view key, bool v) { return Scalar(key, kBool, static_cast<uint8_t>(v)); }
  GgufBuilder& String(std::string_view key, std::string_view v) {
    std::vector<uint8_t> payload;
    ByteWriter w(&payload);
    PutString(&w, v);
    return Raw(key, kString, payload);
  }
  // `claimed`: the element count that the file states.
  GgufBuilder& Strings(std::string_view key, const std::vector<std::string>& values,
                       std::optional<uint64_t> claimed = {}) {
    std::vector<uint8_t> payload;
    ByteWriter w(&payload);
    w.Put(uint32_t{kString});
    w.Put(claimed.value_or(values.size()));
    for (const std::string& v : values) PutString(&w, v);
    return Raw(key, kArray, payload);
  }
  GgufBuilder& I32s(std::string_view key, const std::vector<int32_t>& values,
                    std::optional<uint64_t> claimed = {}) {
    std::vector<uint8_t> payload;
    ByteWriter w(&payload);
    w.Put(uint32_t{kI32});
    w.Put(claimed.value_or(values.size()));
    for (int32_t v : values) w.Put(v);
    return Raw(key, kArray, payload);
  }
  GgufBuilder& F32s(std::string_view key, const std::vector<float>& values) {
    std::vector<uint8_t> payload;
    ByteWriter w(&payload);
    w.Put(uint32_t{kF32});
    w.Put(uint64_t{values.size()});
    for (float v : values) w.Put(v);
    return Raw(key, kArray, payload);
  }

  struct Tensor {
    std::string name;
    uint32_t type = 0;
    std::vector<uint64_t> shape;  // outermost first
    std::vector<uint8_t> data;
    std::optional<uint64_t> offset;  // claimed instead of the true one
    std::optional<uint32_t> claimed_dimensions;
  };
  // A tensor of zeros of its right size.
  GgufBuilder& Zeros(std::string_view name, GgmlType type, const std::vector<uint64_t>& shape) {
    uint64_t elements = 1;
    for (uint64_t d : shape) elements *= d;
    GgmlBlock block = BlockOf(type);
    return Add({.name = std::string(name),
                .type = static_cast<uint32_t>(type),
                .shape = shape,
                .data = std::vector<uint8_t>(elements / block.elements * block.bytes),
                .offset = {},
                .claimed_dimensions = {}});
  }
  GgufBuilder& Add(Tensor tensor) {
    tensors_.push_back(std::move(tensor));
    return *this;
  }
  std::vector<Tensor>& tensors() { return tensors_; }

  std::vector<uint8_t> Build() const {
    std::vector<uint8_t> out;
    ByteWriter w(&out);
    w.PutBytes(AsBytes(magic));
    w.Put(version);
    w.Put(claimed_tensors.value_or(tensors_.size()));
    w.Put(claimed_pairs.value_or(pair_count_));
    w.PutBytes(pairs_);
    uint64_t offset = 0;
    for (const Tensor& t : tensors_) {
      PutString(&w, t.name);
      w.Put(t.claimed_dimensions.value_or(static_cast<uint32_t>(t.shape.size())));
      for (auto d = t.shape.rbegin(); d != t.shape.rend(); ++d) w.Put(*d);
      w.Put(t.type);
      w.Put(t.offset.value_or(offset));
      offset = (offset + t.data.size() + alignment - 1) / alignment * alignment;
    }
    for (const Tensor& t : tensors_) {
      w.PadTo(alignment);
      w.PutBytes(t.data);
    }
    out.resize(out.size() - missing_data);
    return out;
  }

 private:
  static void PutString(ByteWriter* w, std::string_view s) {
    w->Put(uint64_t{s.size()});
    w->PutBytes(AsBytes(s));
  }

  std::vector<uint8_t> pairs_;
  uint64_t pair_count_ = 0;
  std::vector<Tensor> tensors_;
};

// A valid Llama model: 1 layer, hidden 32, 2 heads and 1 KV head of 16 dimensions, inner 64, 8 tokens. `skip`
// leaves out one metadata key or tensor.
inline GgufBuilder SmallLlama(std::string_view skip = "") {
  GgufBuilder b;
  auto u32 = [&](std::string_view key, uint32_t v) {
    if (key != skip) b.U32(key, v);
  };
  b.String("general.architecture", "llama").String("general.name", "small");
  u32("llama.block_count", 1);
  u32("llama.context_length", 128);
  u32("llama.embedding_length", 32);
  u32("llama.feed_forward_length", 64);
  u32("llama.attention.head_count", 2);
  u32("llama.attention.head_count_kv", 1);
  if (skip != "llama.attention.layer_norm_rms_epsilon")
    b.F32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  b.Strings("tokenizer.ggml.tokens", {"a", "b", "c", "d", "e", "f", "g", "<end>"});
  b.I32s("tokenizer.ggml.token_type", {1, 1, 1, 1, 1, 1, 1, 3});
  auto tensor = [&](std::string_view name, GgmlType type, const std::vector<uint64_t>& shape) {
    if (name != skip) b.Zeros(name, type, shape);
  };
  tensor("token_embd.weight", GgmlType::kQ8_0, {8, 32});
  tensor("blk.0.attn_norm.weight", GgmlType::kF32, {32});
  tensor("blk.0.attn_q.weight", GgmlType::kQ4_1, {32, 32});
  tensor("blk.0.attn_k.weight", GgmlType::kQ4_0, {16, 32});
  tensor("blk.0.attn_v.weight", GgmlType::kF16, {16, 32});
  tensor("blk.0.attn_output.weight", GgmlType::kQ4_1, {32, 32});
  tensor("blk.0.ffn_norm.weight", GgmlType::kF32, {32});
  tensor("blk.0.ffn_gate.weight", GgmlType::kQ4_1, {64, 32});
  tensor("blk.0.ffn_up.weight", GgmlType::kBF16, {64, 32});
  tensor("blk.0.ffn_down.weight", GgmlType::kQ4_1, {32, 64});
  tensor("output_norm.weight", GgmlType::kF32, {32});
  return b;
}

// A valid Gemma 3: 3 layers (every second one global), hidden 32, 2 heads and 1 KV head of 48 dimensions.
inline GgufBuilder SmallGemma3(std::string_view skip = "") {
  GgufBuilder b;
  auto u32 = [&](std::string_view name, uint32_t v) {
    if (name != skip) b.U32("gemma3." + std::string(name), v);
  };
  auto f32 = [&](std::string_view name, float v) {
    if (name != skip) b.F32("gemma3." + std::string(name), v);
  };
  b.String("general.architecture", "gemma3").String("general.name", "small");
  u32("block_count", 3);
  u32("context_length", 128);
  u32("embedding_length", 32);
  u32("feed_forward_length", 64);
  u32("attention.head_count", 2);
  u32("attention.head_count_kv", 1);
  u32("attention.key_length", 48);
  u32("attention.value_length", 48);
  u32("attention.sliding_window", 20);
  u32("attention.sliding_window_pattern", 2);
  f32("attention.layer_norm_rms_epsilon", 1e-6f);
  f32("rope.freq_base", 1e6f);
  auto tensor = [&](const std::string& name, const std::vector<uint64_t>& shape) {
    if (name != skip) b.Zeros(name + ".weight", GgmlType::kF32, shape);
  };
  tensor("token_embd", {8, 32});
  tensor("output_norm", {32});
  for (int layer = 0; layer < 3; ++layer) {
    const std::string p = "blk." + std::to_string(layer) + ".";
    for (const char* norm : {"attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"})
      tensor(p + norm, {32});
    for (const char* norm : {"attn_q_norm", "attn_k_norm"}) tensor(p + norm, {48});
    tensor(p + "attn_q", {96, 32});
    for (const char* name : {"attn_k", "attn_v"}) tensor(p + name, {48, 32});
    tensor(p + "attn_output", {32, 96});
    for (const char* name : {"ffn_gate", "ffn_up"}) tensor(p + name, {64, 32});
    tensor(p + "ffn_down", {32, 64});
  }
  return b;
}

}  // namespace quire

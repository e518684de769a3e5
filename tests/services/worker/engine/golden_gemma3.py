#!/usr/bin/env python3
"""Makes the golden logits of gemma3_test.cc: what a NumPy forward of Gemma 3 says.

    pip install numpy==2.4.6 gguf==0.19.0 sentencepiece==0.2.3 protobuf==7.36.2
    python3 golden_gemma3.py tiny golden_gemma3_tiny.bin
    python3 golden_gemma3.py MODEL.gguf golden_gemma3.bin ../../../../LICENSE

Independent of the engine on purpose: weights dequantised by the `gguf` package, tokens by the `sentencepiece` package, attention with
one full softmax in float32 under an explicit mask. `tiny` is a model of three layers, local, global and local, whose weights come from a
counter-based generator that tiny_gemma3.h writes out once more; its embedding is scaled so that its distributions have a mean entropy
below 3 nats.

File, little-endian, as golden_logits.py's: "QGL1" · u32 n · u32 k · u32 tokens[n] · u32 rounded_top[n] (keys and values rounded to bf16)
· per position: u32 ids[k], f32 logits[k], best first.
"""
import struct
import sys

import numpy as np

K = 4
TINY_POSITIONS, REAL_POSITIONS = 640, 704
TINY = {"layers": 3, "hidden": 64, "inner": 96, "heads": 4, "kv_heads": 2, "d": 32, "vocabulary": 300, "eps": 1e-6, "base": 1e6,
        "local_base": 1e4, "factor": 8.0, "window": 70, "global_every": 2}


def bf16(x):
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def mix(x):
    """The finaliser of splitmix64."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def tiny_values(index, count):
    """Tensor number `index`: count values from −1 to 1, multiples of 2^-23."""
    with np.errstate(over="ignore"):
        counters = np.arange(count, dtype=np.uint64) + (np.uint64(index) << np.uint64(32))
        bits = mix((counters + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    return (bits.astype(np.float32) - np.float32(1 << 23)) / np.float32(1 << 23)


def tiny_weights(c):
    """In the order of tiny_gemma3.h: name, shape, scale, offset."""
    q, kv, hidden, inner = c["heads"] * c["d"], c["kv_heads"] * c["d"], c["hidden"], c["inner"]
    tensors = [("token_embd.weight", (c["vocabulary"], hidden), 0.6, 0), ("output_norm.weight", (hidden,), 0.5, 1)]
    for i in range(c["layers"]):
        tensors += [(f"blk.{i}.{name}.weight", shape, scale, offset) for name, shape, scale, offset in (
            ("attn_norm", (hidden,), 0.5, 1), ("attn_q", (q, hidden), 0.25, 0), ("attn_k", (kv, hidden), 0.25, 0),
            ("attn_v", (kv, hidden), 0.25, 0), ("attn_output", (hidden, q), 0.25, 0), ("attn_q_norm", (c["d"],), 0.5, 1.5),
            ("attn_k_norm", (c["d"],), 0.5, 1.5), ("post_attention_norm", (hidden,), 0.5, 3), ("ffn_norm", (hidden,), 0.5, 1),
            ("ffn_gate", (inner, hidden), 0.25, 0), ("ffn_up", (inner, hidden), 0.25, 0), ("ffn_down", (hidden, inner), 0.25, 0),
            ("post_ffw_norm", (hidden,), 0.5, 3))]
    return {name: tiny_values(n, int(np.prod(shape))).reshape(shape) * np.float32(scale) + np.float32(offset)
            for n, (name, shape, scale, offset) in enumerate(tensors)}


def read_model(path):
    import gguf
    reader = gguf.GGUFReader(path)
    field = {name.removeprefix("gemma3."): f.contents() for name, f in reader.fields.items() if name.startswith("gemma3.")}
    config = {"layers": field["block_count"], "hidden": field["embedding_length"], "heads": field["attention.head_count"],
              "kv_heads": field["attention.head_count_kv"], "d": field["attention.key_length"],
              "eps": field["attention.layer_norm_rms_epsilon"], "base": field["rope.freq_base"], "local_base": 1e4, "factor": 1.0,
              "window": field["attention.sliding_window"], "global_every": 6}
    return config, {t.name: gguf.dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}


class Gemma3:
    def __init__(self, config, weights):
        self.c, self.w = config, weights

    def norm(self, x, name):  # the file's weights hold the 1 that is added to them
        return x / np.sqrt(np.mean(np.square(x), -1, keepdims=True) + np.float32(self.c["eps"])) * self.w[name + ".weight"]

    def heads(self, x, name, count):
        return (x @ self.w[name + ".weight"].T).reshape(len(x), count, self.c["d"])

    def rope(self, x, base, factor):  # [n, heads, d]
        half = self.c["d"] // 2
        angle = np.arange(len(x))[:, None] / factor * base ** (-np.arange(half) / half)
        cos, sin = (f(angle).astype(np.float32)[:, None] for f in (np.cos, np.sin))
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def attention(self, x, p, local, rounding):
        c, n = self.c, len(x)
        base, factor = (c["local_base"], 1.0) if local else (c["base"], c["factor"])
        q = self.rope(self.norm(self.heads(x, p + "attn_q", c["heads"]), p + "attn_q_norm"), base, factor)
        k = rounding(self.rope(self.norm(self.heads(x, p + "attn_k", c["kv_heads"]), p + "attn_k_norm"), base, factor))
        v = rounding(self.heads(x, p + "attn_v", c["kv_heads"]))
        behind = np.arange(n)[:, None] - np.arange(n)  # how far each key lies behind each query
        hidden = (behind < 0) | (local & (behind >= c["window"]))
        out = np.empty((n, c["heads"], c["d"]), np.float32)
        for head in range(c["heads"]):
            kv = head * c["kv_heads"] // c["heads"]
            s = np.where(hidden, -np.inf, q[:, head] @ k[:, kv].T / np.sqrt(np.float32(c["d"])))
            s = np.exp(s - s.max(-1, keepdims=True))
            out[:, head] = s / s.sum(-1, keepdims=True) @ v[:, kv]
        return out.reshape(n, -1) @ self.w[p + "attn_output.weight"].T

    def mlp(self, x, p):
        gate, up = (x @ self.w[p + f"ffn_{name}.weight"].T for name in ("gate", "up"))
        gelu = gate / 2 * (1 + np.tanh(np.float32(np.sqrt(2 / np.pi)) * (gate + np.float32(0.044715) * gate ** 3)))
        return (gelu * up) @ self.w[p + "ffn_down.weight"].T

    def forward(self, ids, rounding):
        x = self.w["token_embd.weight"][ids] * np.sqrt(np.float32(self.c["hidden"]))
        for i in range(self.c["layers"]):
            p, local = f"blk.{i}.", (i + 1) % self.c["global_every"] != 0
            x = x + self.norm(self.attention(self.norm(x, p + "attn_norm"), p, local, rounding), p + "post_attention_norm")
            x = x + self.norm(self.mlp(self.norm(x, p + "ffn_norm"), p), p + "post_ffw_norm")
        return self.norm(x, "output_norm") @ self.w["token_embd.weight"].T


def real_tokens(model, text):
    sys.path.insert(0, "../../../core/text")
    from make_sentencepiece_golden import processor_of
    with open(text, encoding="utf-8") as f:
        return [2] + processor_of(model).encode(f.read())[:REAL_POSITIONS - 1]


def main():
    source, output = sys.argv[1:3]
    if source == "tiny":
        model = Gemma3(TINY, tiny_weights(TINY))
        ids = mix(np.arange(TINY_POSITIONS, dtype=np.uint64) + np.uint64(1)) % np.uint64(TINY["vocabulary"])
    else:
        model, ids = Gemma3(*read_model(source)), real_tokens(source, sys.argv[3])
    ids = np.array(ids, np.uint32)
    logits = model.forward(ids, lambda x: x)
    rounded = model.forward(ids, bf16).argmax(-1)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    print("mean entropy", float(-(p * np.log(np.maximum(p, 1e-30))).sum(-1).mean()), "nats; log-likelihood of the text",
          float(np.log(p[np.arange(len(ids) - 1), ids[1:]]).mean()))
    print("rounding K and V changes the first token at", int((rounded != logits.argmax(-1)).sum()), "of", len(ids))
    top = np.argsort(-logits, axis=-1, kind="stable")[:, :K]
    with open(output, "wb") as f:
        f.write(b"QGL1" + struct.pack("<II", len(ids), K) + ids.tobytes() + rounded.astype(np.uint32).tobytes())
        for row, best in zip(logits, top):
            f.write(best.astype(np.uint32).tobytes() + row[best].astype(np.float32).tobytes())


if __name__ == "__main__":
    main()

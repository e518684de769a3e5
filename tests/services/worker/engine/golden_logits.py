#!/usr/bin/env python3
"""Makes golden_logits.bin: what a NumPy forward of the model says about real text.

    pip install numpy gguf tokenizers
    python3 golden_logits.py MODEL.gguf ../../../../LICENSE golden_logits.bin

Independent of the engine on purpose: weights dequantised by the `gguf` package, query and key rows put back into the order of
the original checkpoint (halves turn together, not neighbours), tokens by the `tokenizers` package, attention with one full
softmax in float32 over all positions. A second run rounds keys (after RoPE) and values to bf16, as a served sequence does; of it
only the first token is kept, since one rounding that goes the other way changes all that follow.

File, little-endian: "QGL1" · u32 n · u32 k · u32 tokens[n] · u32 rounded_top[n] · per position: u32 ids[k], f32 logits[k],
best first.
"""
import struct
import sys

import gguf
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

POSITIONS, K = 1024, 8


def bf16(x):
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


class Model:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.fields = {name: field.contents() for name, field in reader.fields.items()
                       if name.startswith(("llama.", "tokenizer."))}
        self.w = {t.name: gguf.dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}
        self.layers = self.fields["llama.block_count"]
        self.heads = self.fields["llama.attention.head_count"]
        self.kv_heads = self.fields["llama.attention.head_count_kv"]
        self.d = self.fields["llama.embedding_length"] // self.heads
        self.eps = self.fields["llama.attention.layer_norm_rms_epsilon"]
        self.base = self.fields["llama.rope.freq_base"]

    def tokenizer(self):
        tokens = self.fields["tokenizer.ggml.tokens"]
        merges = [tuple(m.split(" ")) for m in self.fields["tokenizer.ggml.merges"]]
        t = Tokenizer(models.BPE({text: i for i, text in enumerate(tokens)}, merges))
        t.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
        t.decoder = decoders.ByteLevel()
        return t

    def rows(self, name, heads):  # GGUF interleaves the two halves of every head; take that back
        w = self.w[name]
        return w.reshape(heads, self.d // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)

    def norm(self, x, name):
        return x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + np.float32(self.eps)) * self.w[name]

    def rope(self, x):  # [n, heads, d]
        half = self.d // 2
        angle = np.arange(len(x))[:, None] * self.base ** (-np.arange(half) / half)
        cos, sin = (f(angle).astype(np.float32)[:, None] for f in (np.cos, np.sin))
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def forward(self, ids, rounding):
        n, group = len(ids), self.heads // self.kv_heads
        x = self.w["token_embd.weight"][ids]
        future = np.triu(np.full((n, n), -np.inf, np.float32), 1)
        for i in range(self.layers):
            p = f"blk.{i}."
            h = self.norm(x, p + "attn_norm.weight")
            q = self.rope((h @ self.rows(p + "attn_q.weight", self.heads).T).reshape(n, self.heads, self.d))
            k = rounding(self.rope((h @ self.rows(p + "attn_k.weight", self.kv_heads).T).reshape(n, self.kv_heads, self.d)))
            v = rounding((h @ self.w[p + "attn_v.weight"].T).reshape(n, self.kv_heads, self.d))
            out = np.empty((n, self.heads, self.d), np.float32)
            for head in range(self.heads):
                s = q[:, head] @ k[:, head // group].T / np.sqrt(np.float32(self.d)) + future
                s = np.exp(s - s.max(-1, keepdims=True))
                out[:, head] = s / s.sum(-1, keepdims=True) @ v[:, head // group]
            x = x + out.reshape(n, -1) @ self.w[p + "attn_output.weight"].T
            h = self.norm(x, p + "ffn_norm.weight")
            gate, up = (h @ self.w[p + f"ffn_{name}.weight"].T for name in ("gate", "up"))
            x = x + (gate / (1 + np.exp(-gate)) * up) @ self.w[p + "ffn_down.weight"].T
        head = self.w.get("output.weight", self.w["token_embd.weight"])
        return self.norm(x, "output_norm.weight") @ head.T


def main():
    model = Model(sys.argv[1])
    with open(sys.argv[2], encoding="utf-8") as f:
        ids = np.array(model.tokenizer().encode(f.read()).ids[:POSITIONS], np.uint32)
    logits = model.forward(ids, lambda x: x)
    rounded = model.forward(ids, bf16).argmax(-1)
    print("rounding K and V changes the first token at", int((rounded != logits.argmax(-1)).sum()), "of", len(ids))
    top = np.argsort(-logits, axis=-1, kind="stable")[:, :K]
    with open(sys.argv[3], "wb") as f:
        f.write(b"QGL1" + struct.pack("<II", len(ids), K) + ids.tobytes() + rounded.astype(np.uint32).tobytes())
        for row, best in zip(logits, top):
            f.write(best.astype(np.uint32).tobytes() + row[best].astype(np.float32).tobytes())


if __name__ == "__main__":
    main()

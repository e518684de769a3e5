"""One engine computes a prompt and offloads its KV; another, which never saw it, restores the prefix and goes on.

    python restore_prefix.py --store 127.0.0.1:50061 put       in the first engine's process
    python restore_prefix.py --store 127.0.0.1:50061 restore   in the second's

The engine is a small random transformer in NumPy (grouped queries, RoPE) with a cache shaped like transformers' DynamicCache;
with transformers, put_cache and restore_cache take past_key_values just so.
"""

import argparse
import json

import numpy as np

import quire

CONFIG = {"model_type": "llama", "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 256,
          "head_dim": 64, "rope_theta": 10000.0, "torch_dtype": "bfloat16"}
VOCABULARY, PROMPT_TOKENS = 1000, 300


class Cache:
    """Keys and values of each layer, [1, KV heads, tokens, d]."""

    def __init__(self):
        self.key_cache, self.value_cache = [], []

    def get_seq_length(self):
        return self.key_cache[0].shape[2] if self.key_cache else 0

    def update(self, keys, values, layer):
        if layer == len(self.key_cache):
            self.key_cache.append(keys), self.value_cache.append(values)
        else:
            self.key_cache[layer] = np.concatenate([self.key_cache[layer], keys], axis=2)
            self.value_cache[layer] = np.concatenate([self.value_cache[layer], values], axis=2)
        return self.key_cache[layer].astype(np.float32), self.value_cache[layer].astype(np.float32)


class Engine:
    """Every instance has the same weights, as every engine that loads the same model has."""

    def __init__(self):
        random = np.random.default_rng(0)
        hidden, heads, kv_heads, d = (CONFIG[k] for k in ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim"))
        draw = lambda *shape: (random.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)  # noqa: E731
        self.embedding, self.head = draw(VOCABULARY, hidden), 3 * draw(hidden, VOCABULARY)
        self.layers = [{"q": draw(hidden, heads * d), "k": draw(hidden, kv_heads * d), "v": draw(hidden, kv_heads * d),
                        "o": draw(heads * d, hidden), "up": draw(hidden, 2 * hidden), "down": draw(2 * hidden, hidden)}
                       for _ in range(CONFIG["num_hidden_layers"])]

    def run(self, tokens, cache):
        """Logits after the last of `tokens`, which come after what the cache holds."""
        kv_heads, d = CONFIG["num_key_value_heads"], CONFIG["head_dim"]
        begin = cache.get_seq_length()
        x = self.embedding[tokens]
        positions = np.arange(begin, begin + len(tokens))
        for number, w in enumerate(self.layers):
            h = normal(x)
            split = lambda y: y.reshape(len(tokens), -1, d).transpose(1, 0, 2)  # noqa: E731
            q, k = rotate(split(h @ w["q"]), positions), rotate(split(h @ w["k"]), positions)
            keys, values = cache.update(k[None], split(h @ w["v"])[None], number)
            q = q.reshape(kv_heads, -1, len(tokens), d)
            scores = np.einsum("hgtd,hsd->hgts", q, keys[0]) / np.sqrt(d)
            scores = np.where(np.arange(keys.shape[2]) <= positions[:, None], scores, -np.inf)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            mixed = np.einsum("hgts,hsd->hgtd", scores / scores.sum(-1, keepdims=True), values[0])
            x = x + mixed.reshape(-1, len(tokens), d).transpose(1, 0, 2).reshape(len(tokens), -1) @ w["o"]
            x = x + np.tanh(normal(x) @ w["up"]) @ w["down"]
        return normal(x[-1]) @ self.head


def normal(x):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)


def rotate(x, positions):
    half = x.shape[-1] // 2
    angles = positions[:, None] * CONFIG["rope_theta"] ** (-np.arange(half) / half)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, a * sin + b * cos], -1)


def divergence(logits, other):
    """KL in nats of the distribution of `logits` from that of `other`."""
    p, q = (z - z.max() - np.log(np.exp(z - z.max()).sum()) for z in (logits.astype(np.float64), other.astype(np.float64)))
    return float((np.exp(p) * (p - q)).sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("role", choices=["put", "restore"])
    parser.add_argument("--store", default="127.0.0.1:50061")
    parser.add_argument("--codec", default="tq:k4v4")
    args = parser.parse_args()
    prompt = np.random.default_rng(1).integers(0, VOCABULARY, PROMPT_TOKENS)
    layout = quire.Layout.from_config(CONFIG, model="example/small-random-transformer@1")
    engine, cache = Engine(), Cache()
    with quire.Store(args.store, layout) as store:
        if args.role == "put":
            engine.run(prompt, cache)
            result = store.put_cache(prompt, cache, codec=args.codec)
            print(json.dumps({"stored_blocks": result.stored, "already": result.already, "bytes": result.bytes}))
        else:
            restored = store.restore_cache(prompt[:-1], cache, dtype="f32")  # all but the last token, which is run
            logits, expected = engine.run(prompt[restored:], cache), engine.run(prompt, Cache())
            print(json.dumps({"restored_tokens": restored, "computed_tokens": PROMPT_TOKENS - restored,
                              "divergence_nats": divergence(expected, logits), "same_next_token": bool(logits.argmax() == expected.argmax())}))


if __name__ == "__main__":
    main()

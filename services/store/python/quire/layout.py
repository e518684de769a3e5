"""What must agree for KV to be exchangeable, its canonical bytes and their fingerprint (core/block/README.md)."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import struct
from collections.abc import Mapping
from typing import Any

from .keys import BLOCK_TOKENS, root_key
from .v1 import common_pb2

DTYPES = {"bf16": 0, "f16": 1, "f32": 2}
ITEM_BYTES = {"bf16": 2, "f16": 2, "f32": 4}
_KINDS = {"key": 0, "value": 1, "latent": 2}


# The rotation that layouts take unless they say otherwise: the flattest (core/block/layout.h says what that is worth).
FLAT_ROTATION_SEED = 880776


@dataclasses.dataclass(frozen=True)
class Stream:
    """Keys, values or one latent of a layer. dim: 16…576, a multiple of 16; sliding_window: tokens, 0 = none."""

    kind: str
    heads: int
    dim: int
    sliding_window: int = 0


@dataclasses.dataclass(frozen=True)
class Layer:
    """Either (key, value) with equal heads and windows, or one latent."""

    streams: tuple[Stream, ...]

    @classmethod
    def of(cls, heads: int, dim: int, value_dim: int | None = None, sliding_window: int = 0) -> Layer:
        return cls((Stream("key", heads, dim, sliding_window), Stream("value", heads, value_dim or dim, sliding_window)))


@dataclasses.dataclass(frozen=True)
class Part:
    """The layers [layer_begin, layer_end) and KV heads [head_begin, head_end) that one rank holds."""

    layer_begin: int
    layer_end: int
    head_begin: int
    head_end: int

    def heads_of(self, layer: Layer) -> int:
        """How many of the part's heads this layer has: layers may have different numbers of heads."""
        return max(0, min(self.head_end, layer.streams[0].heads) - self.head_begin)


@dataclasses.dataclass(frozen=True)
class Layout:
    model_digest: bytes  # 32: SHA-256 of the weights; of "repository@revision+quantisation" for other engines
    layers: tuple[Layer, ...]  # those that have KV
    dtype: str = "bf16"  # bf16, f16, f32: what raw KV is
    rope_state: str = ""  # canonical text of everything that changes K after RoPE; "" where K is stored before it
    rotation_seed: int = FLAT_ROTATION_SEED
    # Number in the model of each of `layers`; not part of the fingerprint.
    model_layers: tuple[int, ...] = dataclasses.field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not self.model_layers:
            object.__setattr__(self, "model_layers", tuple(range(len(self.layers))))
        self._validate()

    @classmethod
    def uniform(cls, model: str | bytes, layers: int, kv_heads: int, head_dim: int, **fields: Any) -> Layout:
        """Equal layers. `model`: 32 bytes, or text that names weights and how they were quantised."""
        return cls(model_digest(model), (Layer.of(kv_heads, head_dim),) * layers, **fields)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], model: str | bytes, *, dtype: str | None = None, latent: bool = False,
                    rope_state: str | None = None) -> Layout:
        """Of a Hugging Face config.json (the dict, or PretrainedConfig.to_dict()).

        `model`: "repository@revision+quantisation", or 32 bytes: the SHA-256 of the weights. `dtype`: of the engine's KV
        cache; absent: the config's. `latent`: models with a compressed KV (DeepSeek) are cached as latents, as serving
        engines do, and not as the keys and values that transformers caches. `rope_state`: instead of the text made from
        the config's rope parameters. ValueError names what the config lacks or what cannot be exchanged.
        """
        from .huggingface import layout_fields

        return cls(model_digest=model_digest(model), **layout_fields(config, dtype, latent, rope_state))

    @functools.cached_property
    def serialized(self) -> bytes:
        out = [b"QKVL", struct.pack("<HBBHHIQ", 1, DTYPES[self.dtype], 0, 1, 1, BLOCK_TOKENS, self.rotation_seed),
               self.model_digest]
        rope = self.rope_state.encode()
        out += [struct.pack("<I", len(rope)), rope, struct.pack("<I", len(self.layers))]
        for layer in self.layers:
            out.append(struct.pack("<I", len(layer.streams)))
            out += [struct.pack("<IIII", _KINDS[s.kind], s.heads, s.dim, s.sliding_window) for s in layer.streams]
        return b"".join(out)

    @functools.cached_property
    def fingerprint(self) -> bytes:
        return hashlib.sha256(self.serialized).digest()

    def root_key(self, salt: bytes = b"", extra: bytes = b"") -> bytes:
        return root_key(self.fingerprint, salt, extra)

    @property
    def whole(self) -> Part:
        return Part(0, len(self.layers), 0, max(layer.streams[0].heads for layer in self.layers))

    def to_proto(self) -> common_pb2.Layout:
        message = common_pb2.Layout(model_digest=self.model_digest, dtype=DTYPES[self.dtype], rope_state=self.rope_state,
                                    rotation_id=1, rotation_seed=self.rotation_seed, codebook_id=1, block_tokens=BLOCK_TOKENS)
        for layer in self.layers:
            message.layers.add(streams=[
                common_pb2.StreamLayout(kind=_KINDS[s.kind], heads=s.heads, dim=s.dim, sliding_window=s.sliding_window)
                for s in layer.streams])
        return message

    def _validate(self) -> None:
        """What from_config could get wrong; the store checks all of it again."""
        if len(self.model_digest) != 32:
            raise ValueError(f"model_digest has {len(self.model_digest)} bytes: 32 are wanted")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype}: bf16, f16 or f32")
        if not 1 <= len(self.layers) <= 1024:
            raise ValueError(f"{len(self.layers)} layers: 1…1024")
        if len(self.model_layers) != len(self.layers):
            raise ValueError(f"{len(self.model_layers)} model_layers for {len(self.layers)} layers")
        if len(self.rope_state.encode()) > 4096:
            raise ValueError(f"rope_state has {len(self.rope_state.encode())} bytes: at most 4096")
        for number, layer in enumerate(self.layers):
            if tuple(s.kind for s in layer.streams) not in (("key", "value"), ("latent",)):
                raise ValueError(f"layer {number}: streams are key and value, or one latent")
            if len({(s.heads, s.sliding_window) for s in layer.streams}) != 1:
                raise ValueError(f"layer {number}: key and value differ in heads or sliding window")
            for s in layer.streams:
                if not 1 <= s.heads <= 1024:
                    raise ValueError(f"layer {number}: {s.heads} KV heads: 1…1024")
                if s.dim % 16 != 0 or not 16 <= s.dim <= 576:
                    raise ValueError(f"layer {number}: head dimension {s.dim}: a multiple of 16 of 16…576")


def model_digest(model: str | bytes) -> bytes:
    return model if isinstance(model, bytes) else hashlib.sha256(model.encode()).digest()

"""Between arrays or tensors and the raw form of a block: for each layer of the part, K then V, each [token][head][d].

bf16 has no NumPy type of its own: ml_dtypes.bfloat16 where that package is installed, else uint16, the upper half of a float.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from .keys import BLOCK_TOKENS
from .layout import ITEM_BYTES, Layout, Part

_STORED = {"bf16": np.dtype("<u2"), "f16": np.dtype("<f2"), "f32": np.dtype("<f4")}


def is_torch(value: Any) -> bool:
    return any(base.__module__.partition(".")[0] == "torch" for base in type(value).__mro__)


def _bf16_type() -> np.dtype | None:
    try:
        import ml_dtypes
    except ImportError:
        return None
    return np.dtype(ml_dtypes.bfloat16)


def _to_bf16(values: np.ndarray) -> np.ndarray:
    """float32 → bits, rounded to nearest even; NaN stays NaN."""
    bits = values.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def _bits(value: Any) -> tuple[str, np.ndarray]:
    """The dtype's name and the values; of bf16 their bits as uint16."""
    if is_torch(value):
        import torch

        value = value.detach().cpu()
        if value.dtype == torch.bfloat16:
            return "bf16", value.contiguous().view(torch.int16).numpy().view(np.uint16)
        value = value.numpy()
    array = np.asarray(value)
    if array.dtype.name == "bfloat16":
        return "bf16", array.view(np.uint16)
    if array.dtype == np.uint16:
        return "bf16", array
    if array.dtype == np.float16:
        return "f16", array
    if array.dtype in (np.float32, np.float64):
        return "f32", array.astype(np.float32, copy=False)
    raise TypeError(f"KV of type {array.dtype}: float32, float16, bfloat16 or uint16 (the bits of bf16)")


def _convert(value: Any, dtype: str) -> np.ndarray:
    name, array = _bits(value)
    if name != dtype:
        wide = (array.astype(np.uint32) << 16).view(np.float32) if name == "bf16" else array.astype(np.float32)
        array = _to_bf16(np.ascontiguousarray(wide)) if dtype == "bf16" else wide
    with np.errstate(over="ignore"):  # infinities are the store's to refuse: it names layer, head and token
        return np.ascontiguousarray(array, dtype=_STORED[dtype])


def shape_of(value: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in value.shape)


def row(value: Any, batch: int) -> Any:
    """[heads, tokens, d], of [batch, heads, tokens, d] too."""
    dims = len(shape_of(value))
    if dims == 4:
        return value[batch]
    if dims == 3:
        return value
    raise ValueError(f"KV of shape {list(shape_of(value))}: [batch, heads, tokens, d] or [heads, tokens, d] is wanted")


def to_numpy(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bf16" and (native := _bf16_type()) is not None:
        return values.view(native)
    return values


def to_torch(values: np.ndarray, dtype: str, device: Any = None) -> Any:
    import torch

    tensor = torch.from_numpy(values.view(np.int16)).view(torch.bfloat16) if dtype == "bf16" else torch.from_numpy(values)
    return tensor if device is None else tensor.to(device)


@dataclasses.dataclass(frozen=True)
class _StreamShape:
    heads: int
    dim: int

    def values(self) -> int:
        return BLOCK_TOKENS * self.heads * self.dim


class RawForm:
    """Where each layer of a part lies within a block's raw bytes, and the way in and out. `dtype`: bf16, f16, f32."""

    def __init__(self, layout: Layout, part: Part, dtype: str):
        self.layout, self.part, self.dtype = layout, part, dtype
        self.layers = [tuple(_StreamShape(part.heads_of(layer), stream.dim) for stream in layer.streams)
                       for layer in layout.layers[part.layer_begin:part.layer_end]]
        self.layer_bytes = [sum(s.values() for s in streams) * ITEM_BYTES[dtype] for streams in self.layers]
        self.offsets = [sum(self.layer_bytes[:i]) for i in range(len(self.layer_bytes))]
        self.block_bytes = sum(self.layer_bytes)

    def check(self, layers: Sequence[tuple[Any, Any]], batch: int) -> int:
        """How many tokens all of them hold. ValueError naming the layer whose shape is not the layout's."""
        if len(layers) != len(self.layers):
            raise ValueError(f"KV of {len(layers)} layers: the layout has {len(self.layers)}")
        tokens = sys.maxsize
        for number, (pair, streams) in enumerate(zip(layers, self.layers)):
            for value, stream, name in zip(pair, streams, ("keys", "values")):
                heads, held, dim = shape_of(row(value, batch))
                if (heads, dim) != (stream.heads, stream.dim):
                    raise ValueError(f"layer {number}: {name} have {heads} heads of {dim}: the layout has {stream.heads} of {stream.dim}")
                tokens = min(tokens, held)
        return tokens

    def encode(self, layers: Sequence[tuple[Any, Any]], batch: int, block: int) -> memoryview:
        """The raw bytes of the block-th 64 tokens of `layers`."""
        out = np.empty(self.block_bytes, np.uint8)
        first = block * BLOCK_TOKENS
        for pair, streams, offset in zip(layers, self.layers, self.offsets):
            for value, stream in zip(pair, streams):
                # The 64 tokens are cut out before anything is converted or leaves a device.
                values = _convert(row(value, batch)[:, first:first + BLOCK_TOKENS], self.dtype)
                bytes_ = np.ascontiguousarray(values.transpose(1, 0, 2)).view(np.uint8).reshape(-1)
                out[offset:offset + bytes_.size] = bytes_
                offset += bytes_.size
        return memoryview(out)

    def decode_layer(self, layer: int, rows: np.ndarray) -> list[np.ndarray]:
        """Of each stream [heads, tokens, d]. `rows`: u8 [blocks, layer_bytes]."""
        out, offset = [], 0
        for stream in self.layers[layer]:
            size = stream.values() * ITEM_BYTES[self.dtype]
            values = rows[:, offset:offset + size].copy().view(_STORED[self.dtype])
            values = values.reshape(len(rows) * BLOCK_TOKENS, stream.heads, stream.dim)
            out.append(np.ascontiguousarray(values.transpose(1, 0, 2)))
            offset += size
        return out

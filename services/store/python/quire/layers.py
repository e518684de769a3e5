"""A stored prefix, layer by layer as it comes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from .errors import StoreError, code_of
from .keys import BLOCK_TOKENS
from .v1 import kv_store_pb2
from .values import RawForm


class BatchGet:
    """One Get of at most 4096 blocks in order BY_LAYER. Its misses are known before its data come."""

    def __init__(self, call: Any, responses: Iterator[kv_store_pb2.GetResponse], blocks: int, form: RawForm):
        self._call, self._responses, self._form = call, responses, form
        self.blocks = blocks  # before the first that is missing
        self.miss: StoreError | None = None
        self._next: kv_store_pb2.BlockData | None = None
        for response in responses:
            if response.HasField("data"):
                self._next = response.data
                break
            if response.miss.block < self.blocks:
                self.blocks = response.miss.block
                self.miss = StoreError(code_of(response.miss.code), response.miss.message, response.miss.block)

    def cancel(self) -> None:
        self._call.cancel()

    def layer(self, layer: int) -> np.ndarray:
        """u8 [blocks, layer_bytes] of the next layer."""
        size, offset = self._form.layer_bytes[layer], self._form.offsets[layer]
        rows = np.empty((self.blocks, size), np.uint8)
        left = self.blocks * size
        while left > 0:
            if self._next is None:
                raise _unexpected(f"the store ended a Get within layer {layer}")
            data, self._next = self._next, None
            if data.block < self.blocks:
                at = data.offset - offset
                if data.layer != layer or at < 0 or at + len(data.data) > size:
                    raise _unexpected(f"the store sent bytes {data.offset}…{data.offset + len(data.data)} of layer {data.layer} where "
                                      f"layer {layer} comes next")
                rows[data.block, at:at + len(data.data)] = np.frombuffer(data.data, np.uint8)
                left -= len(data.data)
            self._advance()
        return rows

    def _advance(self) -> None:
        for response in self._responses:
            if response.HasField("data"):
                self._next = response.data
                return
            miss = response.miss  # the store found wrong bytes behind those it has sent
            if miss.block < self.blocks:
                raise StoreError(code_of(miss.code), miss.message, miss.block)


def _unexpected(message: str) -> StoreError:
    return StoreError(code_of(13), message)


@dataclasses.dataclass(frozen=True)
class LayerKv:
    """KV of one layer, [heads, tokens, d]. `value` is None for a latent."""

    layer: int  # number in the model
    key: Any
    value: Any


class LayerStream:
    """Iterates over the layers of a stored prefix in order, each handed out as soon as it is whole.

    `tokens` of the prefix come, known from the start. Close it, or use it in a with statement, to stop early.
    """

    def __init__(self, form: RawForm, batches: list[BatchGet], make: Any):
        self._form, self._make = form, make
        self._batches: list[BatchGet] = []
        for batch in batches:
            if self._batches and self._batches[-1].miss:
                batch.cancel()
            else:
                self._batches.append(batch)
        self.miss = self._batches[-1].miss if self._batches else None  # why it is shorter than Lookup said
        self.tokens = sum(batch.blocks for batch in self._batches) * BLOCK_TOKENS

    def __iter__(self) -> Iterator[LayerKv]:
        if self.tokens == 0:
            return
        layout, part = self._form.layout, self._form.part
        try:
            for layer in range(len(self._form.layers)):
                rows = [batch.layer(layer) for batch in self._batches]
                streams = self._form.decode_layer(layer, rows[0] if len(rows) == 1 else np.concatenate(rows))
                key, *value = [self._make(stream) for stream in streams]
                yield LayerKv(layout.model_layers[part.layer_begin + layer], key, value[0] if value else None)
        finally:
            self.close()

    def close(self) -> None:
        for batch in self._batches:
            batch.cancel()

    def __enter__(self) -> LayerStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""The client. One Store speaks for one layout (and part of it), tenant and salt; it may be used by many threads."""

from __future__ import annotations

import dataclasses
import ipaddress
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import grpc
import numpy as np

from . import cache as caches
from .errors import StoreError
from .keys import BLOCK_TOKENS, block_keys
from .layers import BatchGet, LayerStream
from .layout import DTYPES, Layout, Part
from .v1 import common_pb2, kv_store_pb2, store_admin_pb2
from .values import RawForm, to_numpy, to_torch
from .wire import MAX_BLOCKS, MAX_KEYS, Calls

_TIERS = ("none", "gpu", "host", "disk", "redis")
_STATES: tuple[Literal["miss", "hit", "pending"], ...] = ("miss", "hit", "pending")
_LEASE_SECONDS = 5.0  # from a lookup until the Get holds its blocks; the store keeps what it is reading


@dataclasses.dataclass(frozen=True)
class Tls:
    """PEM bytes. `ca`: who signed the store's certificate, None: the system's. `certificate` and `key`: one's own, for mTLS."""

    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None

    @classmethod
    def from_files(cls, ca: str | None = None, certificate: str | None = None, key: str | None = None) -> Tls:
        def read(path: str | None) -> bytes | None:
            if path is None:
                return None
            with open(path, "rb") as file:
                return file.read()

        return cls(read(ca), read(certificate), read(key))


@dataclasses.dataclass(frozen=True)
class BlockInfo:
    state: Literal["miss", "hit", "pending"]
    tier: str  # the fastest that holds it
    levels: int
    codec: str  # of layer 0
    bytes: int
    fetch_seconds: float  # predicted


@dataclasses.dataclass(frozen=True)
class Prefix:
    tokens: int  # of the longest stored prefix
    blocks: tuple[BlockInfo, ...]  # up to and including the first that is no hit
    lease_id: int


@dataclasses.dataclass(frozen=True)
class PutResult:
    stored: int  # blocks
    already: int  # blocks that were there
    bytes: int  # as stored


@dataclasses.dataclass(frozen=True)
class Kv:
    """KV of the first `tokens` tokens: of each layer that has KV (keys, values), [heads, tokens, d]; values None for a latent."""

    tokens: int
    layers: list[tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class TierStats:
    tier: str
    capacity_bytes: int
    used_bytes: int
    blocks: int
    raw_bytes: int


class Store:
    """A quire-store. Every call raises StoreError with gRPC's code and the store's message, and has a deadline.

    target: "host:port" or "unix:/path". tenant: "" is one's own. salt, extra: see keys.root_key. timeout: seconds of a call,
    of a whole put or fetch; each call takes its own too. token: sent as a bearer token, only over TLS or on this host.
    """

    def __init__(self, target: str, layout: Layout, *, part: Part | None = None, tenant: str = "", salt: bytes = b"",
                 extra: bytes = b"", timeout: float = 60.0, tls: Tls | None = None, token: str | None = None, tries: int = 3,
                 channel: grpc.Channel | None = None):
        if token is not None and tls is None and channel is None and not _is_local(target):
            raise ValueError(f"a token to {target} wants tls: it would cross the network in the clear")
        self.layout, self.part, self.timeout = layout, part or layout.whole, timeout
        self.root = layout.root_key(salt, extra)
        self._whole = part is None or part == layout.whole
        self._owned = channel is None
        self._channel = channel or _open(target, tls)
        metadata = [("authorization", f"Bearer {token}")] if token is not None else []
        self._calls = Calls(self._channel, metadata, tries)
        self._namespace = kv_store_pb2.Namespace(tenant=tenant, fingerprint=layout.fingerprint)

    def close(self) -> None:
        if self._owned:
            self._channel.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def keys(self, tokens: Sequence[int]) -> list[bytes]:
        """Block keys of the whole blocks of `tokens`."""
        return block_keys(self.root, tokens)

    def register(self, timeout: float | None = None) -> None:
        """Makes the layout known. Other calls do it themselves when the store does not know it."""
        request = kv_store_pb2.RegisterLayoutRequest(layout=self.layout.to_proto())
        response = self._calls.ask("RegisterLayout", request, timeout or self.timeout)
        if response.fingerprint != self.layout.fingerprint:
            raise StoreError(grpc.StatusCode.INTERNAL, "store and client disagree on the layout's fingerprint: their versions differ")

    # What is stored.

    def lookup(self, tokens: Sequence[int], *, lease: float = 0.0, timeout: float | None = None) -> Prefix:
        """The longest stored prefix of `tokens`. `lease`: seconds (at most 600) for which it is promised to stay."""
        keys = self.keys(tokens)[:MAX_KEYS]
        request = kv_store_pb2.LookupRequest(namespace=self._namespace, keys=keys, lease_ms=round(lease * 1000), part=self._part())
        response = self._ask("Lookup", request, timeout)
        blocks = tuple(BlockInfo(_STATES[b.state], _TIERS[b.tier], b.levels, b.codec, b.bytes, b.fetch_us * 1e-6)
                       for b in response.blocks)
        return Prefix(response.prefix_blocks * BLOCK_TOKENS, blocks, response.lease_id)

    def delete(self, tokens: Sequence[int], *, force: bool = False) -> int:
        """Removes the blocks of `tokens`; leased and pinned ones only if `force`. How many went."""
        return self._about("Delete", "deleted", kv_store_pb2.DeleteRequest, tokens, force=force)

    def pin(self, tokens: Sequence[int]) -> int:
        """Keeps the blocks until unpinned; pins count. How many are stored."""
        return self._about("Pin", "pinned", kv_store_pb2.PinRequest, tokens)

    def unpin(self, tokens: Sequence[int]) -> int:
        return self._about("Unpin", "unpinned", kv_store_pb2.UnpinRequest, tokens)

    def touch(self, tokens: Sequence[int]) -> int:
        """Marks the blocks as used now. How many are stored."""
        return self._about("Touch", "touched", kv_store_pb2.TouchRequest, tokens)

    def prefetch(self, tokens: Sequence[int], tier: str = "none") -> int:
        """Asks for the blocks in a tier at least as fast as `tier` ("none": the fastest). How many will be moved."""
        if tier not in _TIERS:
            raise ValueError(f"tier is {tier}: one of {', '.join(_TIERS)}")
        return self._about("Prefetch", "queued", kv_store_pb2.PrefetchRequest, tokens, tier=_TIERS.index(tier))

    def stats(self, timeout: float | None = None) -> dict[str, Any]:
        """The store's counters by name, and "tiers": a list of TierStats."""
        response = self._calls.ask("Stats", store_admin_pb2.StatsRequest(), timeout or self.timeout)
        out = {field.name: getattr(response, field.name) for field in response.DESCRIPTOR.fields if field.name != "tiers"}
        out["tiers"] = [TierStats(_TIERS[t.tier], t.capacity_bytes, t.used_bytes, t.blocks, t.raw_bytes) for t in response.tiers]
        return out

    # KV in.

    def put(self, tokens: Sequence[int], layers: Sequence[tuple[Any, Any]], *, codec: str = "tq:k4v4", first_block: int = 0,
            batch: int = 0, ttl: float = 0.0, priority: int = 0, timeout: float | None = None) -> PutResult:
        """Stores the whole blocks of `tokens`, encoded by the store with `codec`.

        layers: of each layer of the layout (keys, values), NumPy arrays or torch tensors [heads, tokens, d] or [batch, heads,
        tokens, d]; (latent,) for a latent; float32, float16, bfloat16, or uint16, the bits of bf16. They may hold fewer tokens
        than `tokens`: what they hold is stored. They start with the first token, or with block `first_block`, whose parent
        must then be stored. ttl: seconds after which the blocks may go, 0 = no limit; priority: −100…100, higher stays longer.
        """
        form = RawForm(self.layout, self.part, self.layout.dtype)
        keys = self.keys(tokens)
        last = min(len(keys), first_block + form.check(layers, batch) // BLOCK_TOKENS)
        stored = size = 0
        deadline = time.monotonic() + (timeout or self.timeout)
        for begin in range(first_block, last, MAX_BLOCKS):
            end = min(last, begin + MAX_BLOCKS)
            announce = kv_store_pb2.PutAnnounce(namespace=self._namespace, blocks=self._announces(keys, begin, end, form.block_bytes),
                                                part=self._part(), encode=codec, ttl_ms=round(ttl * 1000), priority=priority)

            def payload(i: int, begin: int = begin) -> memoryview:
                return form.encode(layers, batch, begin + i - first_block)

            try:
                done = self._with_layout(lambda: self._calls.put(announce, payload, max(0.0, deadline - time.monotonic())))
            except StoreError as error:
                if error.block is not None:
                    raise StoreError(error.code, error.message, begin + error.block) from None
                raise
            stored, size = stored + len(done), size + sum(done.values())
        return PutResult(stored, max(0, last - first_block) - stored, size)

    def put_cache(self, tokens: Sequence[int], cache: Any, **options: Any) -> PutResult:
        """Stores a whole transformers DynamicCache, or what is shaped like one; options as for put.

        ValueError where a layer holds fewer tokens than another: sliding-window caches forget, so their layers must be put
        while the window still holds them, block by block with first_block.
        """
        pairs = caches.pairs_of(cache)
        if len(pairs) <= max(self.layout.model_layers):
            raise ValueError(f"the cache has {len(pairs)} layers: the layout names layer {max(self.layout.model_layers)}")
        mine = self.layout.model_layers[self.part.layer_begin:self.part.layer_end]
        held = {}
        for number in mine:
            if pairs[number][0] is None:
                raise ValueError(f"layer {number} of the cache is empty")
            held[number] = int(pairs[number][0].shape[-2])
        short = min(held, key=held.__getitem__)
        wanted = min(len(tokens), max(held.values())) // BLOCK_TOKENS * BLOCK_TOKENS
        if held[short] < wanted:
            raise ValueError(f"layer {short} of the cache holds {held[short]} of {wanted} tokens: a sliding-window cache keeps its window "
                             "only; put blocks while they are in it (first_block)")
        return self.put(tokens, [pairs[number] for number in mine], **options)

    # KV out.

    def fetch(self, tokens: Sequence[int], *, dtype: str | None = None, max_bits: int = 0, max_relative_error: float = 0.0,
              device: Any = None, torch: bool = False, timeout: float | None = None) -> LayerStream:
        """Begins to fetch the longest stored prefix of `tokens`, layer by layer, to be used while the rest is on its way.

        dtype: bf16, f16 or f32; None: the layout's. max_bits: decode at most the levels that hold this many bits, 0 = all;
        max_relative_error: the fewest levels at most this far off, 0 = not used. NumPy arrays come (bf16 as ml_dtypes.bfloat16,
        without that package as uint16 bits); with `torch` tensors, on `device`.
        """
        dtype = dtype or self.layout.dtype
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype}: bf16, f16 or f32")
        timeout = timeout or self.timeout
        deadline = time.monotonic() + timeout
        prefix = self.lookup(tokens, lease=_LEASE_SECONDS, timeout=timeout)
        form = RawForm(self.layout, self.part, dtype)
        keys = self.keys(tokens)[:prefix.tokens // BLOCK_TOKENS]
        batches: list[BatchGet] = []
        try:
            for begin in range(0, len(keys), MAX_BLOCKS):
                end = min(len(keys), begin + MAX_BLOCKS)
                request = kv_store_pb2.GetRequest(
                    namespace=self._namespace, blocks=self._announces(keys, begin, end, 0), part=self._part(),
                    order=kv_store_pb2.GetRequest.BY_LAYER, max_bits=max_bits, max_relative_error=max_relative_error,
                    decode=kv_store_pb2.Decode(dtype=DTYPES[dtype]), lease_id=prefix.lease_id)
                call, responses = self._calls.get(request, max(0.0, deadline - time.monotonic()))
                batches.append(BatchGet(call, responses, end - begin, form))
        except BaseException:
            for batch in batches:
                batch.cancel()
            raise

        def make(values: np.ndarray) -> Any:
            return to_torch(values, dtype, device) if torch or device is not None else to_numpy(values, dtype)

        return LayerStream(form, batches, make)

    def get(self, tokens: Sequence[int], **options: Any) -> Kv:
        """The longest stored prefix of `tokens`, decoded; options as for fetch."""
        with self.fetch(tokens, **options) as stream:
            layers = [(layer.key, layer.value) for layer in stream]
            return Kv(stream.tokens, layers)

    def restore_cache(self, tokens: Sequence[int], cache: Any, **options: Any) -> int:
        """Fills an empty DynamicCache, or what is shaped like one, with the longest stored prefix of `tokens`.

        Returns how many tokens it holds then. transformers' caches get tensors, others NumPy arrays, unless `torch` or `device`
        say more; all [1, heads, tokens, d]; other options as for fetch. Restore all but the last token of a prompt: a model
        needs one to run on. If it fails midway the cache is to be thrown away.
        """
        if held := caches.held_tokens(cache):
            raise ValueError(f"the cache holds {held} tokens already: an empty one is wanted")
        options.setdefault("torch", caches.wants_torch(cache))
        with self.fetch(tokens, **options) as stream:
            for layer in stream:
                if layer.value is None:
                    raise ValueError(f"layer {layer.layer} is a latent: a cache of keys and values cannot hold it; use fetch")
                caches.fill(cache, layer.layer, layer.key[None], layer.value[None])
            return stream.tokens

    # How calls are made.

    def _part(self) -> common_pb2.Part | None:
        return None if self._whole else common_pb2.Part(**dataclasses.asdict(self.part))

    def _announces(self, keys: list[bytes], begin: int, end: int, size: int) -> list[kv_store_pb2.BlockAnnounce]:
        return [kv_store_pb2.BlockAnnounce(key=keys[i], parent=keys[i - 1] if i else self.root, index=i, bytes=size)
                for i in range(begin, end)]

    def _about(self, name: str, count: str, request: Any, tokens: Sequence[int], **fields: Any) -> int:
        keys = self.keys(tokens)
        return sum(getattr(self._ask(name, request(namespace=self._namespace, keys=keys[i:i + MAX_KEYS], **fields), None), count)
                   for i in range(0, len(keys), MAX_KEYS))

    def _ask(self, name: str, request: Any, timeout: float | None) -> Any:
        return self._with_layout(lambda: self._calls.ask(name, request, timeout or self.timeout))

    def _with_layout(self, call: Callable[[], Any]) -> Any:
        """On NOT_FOUND tells the store the layout, which it may have forgotten by a restart, and calls once more."""
        try:
            return call()
        except StoreError as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise
        self.register()
        return call()


def _open(target: str, tls: Tls | None) -> grpc.Channel:
    if tls is None:
        return grpc.insecure_channel(target)
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate))


def _is_local(target: str) -> bool:
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    host = target.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

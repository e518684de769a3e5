"""Calls and their retries, and the two streams of quire.v1.KvStore."""

from __future__ import annotations

import queue
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from .errors import StoreError, code_of
from .v1 import kv_store_pb2, store_admin_pb2

CHUNK_BYTES = 1 << 20  # data bytes of one message
MAX_BLOCKS = 4096  # of one Put or Get
MAX_KEYS = 65536  # of one call about keys

_KV = {"RegisterLayout": kv_store_pb2.RegisterLayoutResponse, "Lookup": kv_store_pb2.LookupResponse,
       "Delete": kv_store_pb2.DeleteResponse, "Pin": kv_store_pb2.PinResponse, "Unpin": kv_store_pb2.UnpinResponse,
       "Touch": kv_store_pb2.TouchResponse, "Prefetch": kv_store_pb2.PrefetchResponse}


class Calls:
    """The calls of a channel, each with its deadline; those that repeat harmlessly are tried again on UNAVAILABLE."""

    def __init__(self, channel: grpc.Channel, metadata: Sequence[tuple[str, str]], tries: int):
        self._metadata, self._tries = tuple(metadata), tries
        serialize = lambda message: message.SerializeToString()  # noqa: E731
        self._unary = {name: channel.unary_unary(f"/quire.v1.KvStore/{name}", serialize, response.FromString)
                       for name, response in _KV.items()}
        self._unary["Stats"] = channel.unary_unary("/quire.v1.StoreAdmin/Stats", serialize, store_admin_pb2.StatsResponse.FromString)
        self._put = channel.stream_stream("/quire.v1.KvStore/Put", serialize, kv_store_pb2.PutResponse.FromString)
        self._get = channel.unary_stream("/quire.v1.KvStore/Get", serialize, kv_store_pb2.GetResponse.FromString)

    def ask(self, name: str, request: Any, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        return self.retry(deadline, lambda: self._unary[name](request, timeout=max(0.0, deadline - time.monotonic()),
                                                              metadata=self._metadata))

    def retry(self, deadline: float, call: Callable[[], Any]) -> Any:
        """What `call` returns; on UNAVAILABLE once more, after a random pause that grows, while tries and time last."""
        pause = 0.02
        for tries in range(self._tries, 0, -1):
            try:
                return call()
            except grpc.RpcError as error:
                failure = StoreError.of(error)
            wait = pause * random.uniform(0.5, 1.5)
            if failure.code is not grpc.StatusCode.UNAVAILABLE or tries == 1 or time.monotonic() + wait >= deadline:
                raise failure
            time.sleep(wait)
            pause = min(2 * pause, 0.5)
        raise AssertionError("unreachable")

    def put(self, announce: kv_store_pb2.PutAnnounce, payload: Callable[[int], memoryview], timeout: float) -> dict[int, int]:
        """Stores what of the announced blocks is wanted: stored bytes by block. StoreError of the first that was refused."""
        requests = _PutRequests(announce, payload)
        call = self._put(iter(requests), timeout=timeout, metadata=self._metadata)
        stored: dict[int, int] = {}
        refused: StoreError | None = None
        try:
            for response in call:
                if response.HasField("wanted"):
                    requests.begin(list(response.wanted.blocks))
                elif response.result.code == 0:
                    stored[response.result.block] = response.result.stored_bytes
                elif refused is None:
                    result = response.result
                    refused = StoreError(code_of(result.code), result.message, result.block)
                    requests.stop()  # the blocks after it would lack their parent
        except grpc.RpcError as error:
            raise requests.failure or refused or StoreError.of(error) from None
        finally:
            requests.stop()
        if requests.failure or refused:
            raise requests.failure or refused
        return stored

    def get(self, request: kv_store_pb2.GetRequest, timeout: float) -> tuple[Any, Iterator[kv_store_pb2.GetResponse]]:
        """The call, to cancel it, and its responses. UNAVAILABLE before the first is tried again."""
        deadline = time.monotonic() + timeout

        def begin() -> tuple[Any, Any]:
            call = self._get(request, timeout=max(0.0, deadline - time.monotonic()), metadata=self._metadata)
            return call, next(call, None)

        call, first = self.retry(deadline, begin)
        return call, self._responses(call, first)

    @staticmethod
    def _responses(call: Any, first: kv_store_pb2.GetResponse | None) -> Iterator[kv_store_pb2.GetResponse]:
        if first is None:
            return
        yield first
        try:
            yield from call
        except grpc.RpcError as error:
            raise StoreError.of(error) from None


class _PutRequests:
    """What gRPC's sending thread takes: the announcement, then, once it is known what is wanted, chunks of that."""

    def __init__(self, announce: kv_store_pb2.PutAnnounce, payload: Callable[[int], memoryview]):
        self._announce, self._payload = announce, payload
        self._wanted: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
        self._stopped = False
        self.failure: Exception | None = None  # of `payload`

    def begin(self, wanted: list[int]) -> None:
        self._wanted.put(wanted)

    def stop(self) -> None:
        self._stopped = True
        self._wanted.put([])

    def __iter__(self) -> Iterator[kv_store_pb2.PutRequest]:
        yield kv_store_pb2.PutRequest(announce=self._announce)
        for block in self._wanted.get():
            try:
                data = self._payload(block)
            except Exception as error:  # raised to the caller of put: here gRPC would hide it
                self.failure = error
                return
            for offset in range(0, len(data), CHUNK_BYTES):
                if self._stopped and offset == 0:
                    return
                chunk = kv_store_pb2.BlockData(block=block, offset=offset, data=bytes(data[offset:offset + CHUNK_BYTES]))
                yield kv_store_pb2.PutRequest(data=chunk)

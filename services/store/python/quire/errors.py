"""What the store, or the way to it, said no with."""

from __future__ import annotations

import grpc


class StoreError(Exception):
    """A call that failed.

    `code` is gRPC's; `message` names the thing, the limit and the value. `block` is the index of the block within the
    call's tokens where one block was at fault, else None.
    """

    def __init__(self, code: grpc.StatusCode, message: str, block: int | None = None):
        self.code, self.message, self.block = code, message, block
        where = f"block {block}: " if block is not None else ""
        super().__init__(f"{code.name}: {where}{message}")

    @classmethod
    def of(cls, error: grpc.RpcError) -> StoreError:
        return cls(error.code(), error.details() or "")


_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


def code_of(number: int) -> grpc.StatusCode:
    return _BY_NUMBER.get(number, grpc.StatusCode.UNKNOWN)

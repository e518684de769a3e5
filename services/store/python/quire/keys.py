"""The key chain: names of blocks, which depend on the layout, a salt and every token up to the block's end.

    root  = SHA-256("quire.root.v1"  ‖ fingerprint ‖ u32 len ‖ salt ‖ u32 len ‖ extra)
    key_i = SHA-256("quire.block.v1" ‖ key_{i−1} ‖ 64 tokens as u32)          key_{−1} = root
"""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from collections.abc import Sequence

BLOCK_TOKENS = 64  # tokens a block


def root_key(fingerprint: bytes, salt: bytes = b"", extra: bytes = b"") -> bytes:
    """The 32 bytes before the first key. `extra` is for what else changes KV: adapters, images."""
    if len(fingerprint) != 32:
        raise ValueError(f"fingerprint has {len(fingerprint)} bytes: 32 are wanted")
    return hashlib.sha256(b"quire.root.v1" + fingerprint + struct.pack("<I", len(salt)) + salt
                          + struct.pack("<I", len(extra)) + extra).digest()


def block_key(parent: bytes, tokens: Sequence[int]) -> bytes:
    """The key of the block of these 64 tokens after `parent`."""
    if len(tokens) != BLOCK_TOKENS:
        raise ValueError(f"a block has {BLOCK_TOKENS} tokens: {len(tokens)} were given")
    return hashlib.sha256(b"quire.block.v1" + parent + _packed(tokens)).digest()


def block_keys(root: bytes, tokens: Sequence[int]) -> list[bytes]:
    """Keys of all whole blocks of a prompt, in order; tokens of a last partial block have no key."""
    packed = _packed(tokens)
    keys: list[bytes] = []
    parent = root
    step = 4 * BLOCK_TOKENS
    for at in range(0, len(packed) - step + 1, step):
        parent = hashlib.sha256(b"quire.block.v1" + parent + packed[at:at + step]).digest()
        keys.append(parent)
    return keys


def _packed(tokens: Sequence[int]) -> bytes:
    """Tokens as little-endian u32; of anything that has a tolist (NumPy arrays, tensors) or is a sequence of ints."""
    values = tokens.tolist() if hasattr(tokens, "tolist") else tokens
    try:
        packed = array("I", values)
    except (OverflowError, TypeError) as error:
        raise ValueError(f"tokens are not all integers of 0…4294967295: {error}") from None
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()

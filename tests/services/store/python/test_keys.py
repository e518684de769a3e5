"""The key chain against the values of core/block's tests."""

import json

import numpy as np
import pytest

import quire
from conftest import ROOT

GOLDEN = sorted((ROOT / "tests/data/format_v1").glob("d*_*.json"))


def test_there_are_goldens():
    assert len(GOLDEN) >= 10


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_objects(path):
    golden = json.loads(path.read_text())
    root = quire.root_key(bytes.fromhex(golden["fingerprint"]), golden["salt"].encode())
    index = golden["index"]
    keys = quire.block_keys(root, [7 * i + 1 for i in range(64 * (index + 1) + 5)])
    assert len(keys) == index + 1
    assert keys[index].hex() == golden["key"]
    assert (keys[index - 1] if index else root).hex() == golden["parent"]


def test_golden_chain():
    root = quire.root_key(bytes(range(32)), b"salt", b"extra")
    assert root.hex() == "e7e9455826f6baa1e52f2ccf6d4afe7de144c61978245f03243540997ffc3e42"
    keys = quire.block_keys(root, range(100000, 100200))
    assert [keys[0].hex(), keys[2].hex()] == ["c803cd5bc38c2e3adaa4f0221a8f2ee2a41f2e7fddb0877bb2073717a8d6836b",
                                              "f44ccf773e5c0487ee118a24556b288486a944536cf44cb27b0f825068dfc96a"]
    assert quire.root_key(bytes(range(32))).hex() == "44bf6c06504e96d8cfddd9cd9c002dc591c8dc9000dcfd4888b4e73304ffeb5d"


def test_a_chain_is_block_by_block_and_of_whole_blocks():
    root = quire.root_key(bytes(32))
    tokens = np.arange(200)
    keys = quire.block_keys(root, tokens)
    assert keys[0] == quire.block_key(root, tokens[:64]) and keys[1] == quire.block_key(keys[0], tokens[64:128])
    assert quire.block_keys(root, tokens[:63]) == [] and len(quire.block_keys(root, tokens[:127])) == 1
    assert keys == quire.block_keys(root, tokens.tolist()) == quire.block_keys(root, tokens.astype(np.uint32))


@pytest.mark.parametrize("tokens", [[-1] * 64, [2**32] * 64, [0.5] * 64, ["a"] * 64, np.full(64, 1.5)])
def test_what_is_no_token_is_refused(tokens):
    with pytest.raises(ValueError, match="0…4294967295"):
        quire.block_keys(bytes(32), tokens)


def test_wrong_lengths_are_refused():
    with pytest.raises(ValueError, match="64 tokens: 63"):
        quire.block_key(bytes(32), range(63))
    with pytest.raises(ValueError, match="31 bytes"):
        quire.root_key(bytes(31))

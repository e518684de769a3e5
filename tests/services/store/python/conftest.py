import contextlib
import pathlib

import numpy as np
import pytest

import quire
from processes import Process, binary

ROOT = pathlib.Path(__file__).resolve().parents[4]


@contextlib.contextmanager
def started(*flags, listen="127.0.0.1:0"):
    """A quire-store of its own: the process and its address."""
    process = Process([binary("quire-store"), "--listen", listen, *flags])
    try:
        yield process, process.wait_for(r"ready, listening on (\S+)")[1]
    finally:
        process.kill()


@pytest.fixture(scope="session")
def address():
    with started("--host-bytes", "256MiB") as (_, at):
        yield at


@pytest.fixture
def layout(request):
    """Of the test's own, so that tests that share a store do not meet."""
    return quire.Layout.uniform(request.node.nodeid, layers=3, kv_heads=2, head_dim=64, dtype="f32")


def random_kv(layout, tokens, seed=0, dtype=np.float32):
    """Of each layer [heads, tokens, d] of each of its streams."""
    random = np.random.default_rng(seed)
    return [tuple(random.standard_normal((s.heads, tokens, s.dim)).astype(dtype) for s in layer.streams) for layer in layout.layers]


def some_tokens(count, seed=0):
    return np.random.default_rng(seed).integers(0, 50000, count).tolist()


def relative_error(values, expected):
    values, expected = np.asarray(values, np.float64), np.asarray(expected, np.float64)
    return float(((values - expected) ** 2).sum() / (expected ** 2).sum())

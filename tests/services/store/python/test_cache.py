"""Whole caches of engines, by their shapes, and one engine's prefix restored by another through a real quire-store."""

import json
import subprocess
import sys

import numpy as np
import pytest

import quire
from conftest import ROOT, random_kv, some_tokens, started

sys.path.insert(0, str(ROOT / "services/store/python/examples"))
import restore_prefix  # noqa: E402


class LayeredCache:
    """transformers' DynamicCache since 4.54: a list of layers that is filled by update."""

    class Layer:
        def __init__(self):
            self.keys = self.values = None

    def __init__(self, layers=0):
        self.layers = [self.Layer() for _ in range(layers)]

    def update(self, keys, values, layer, cache_kwargs=None):
        while len(self.layers) <= layer:
            self.layers.append(self.Layer())
        held = self.layers[layer]
        held.keys = keys if held.keys is None else np.concatenate([held.keys, keys], axis=-2)
        held.values = values if held.values is None else np.concatenate([held.values, values], axis=-2)
        return held.keys, held.values

    def get_seq_length(self):
        return 0 if not self.layers or self.layers[0].keys is None else self.layers[0].keys.shape[-2]


class OldCache:
    """DynamicCache before that, as far as it is data."""

    def __init__(self):
        self.key_cache, self.value_cache = [], []


def filled(kind, kv):
    cache = kind()
    for number, pair in enumerate(kv):
        keys, values = (x[None] for x in pair)
        if kind is list:
            cache.append((keys, values))
        elif kind is OldCache:
            cache.key_cache.append(keys), cache.value_cache.append(values)
        else:
            cache.update(keys, values, number)
    return cache


@pytest.mark.parametrize("kind", [LayeredCache, OldCache, restore_prefix.Cache, list])
@pytest.mark.parametrize("other", [LayeredCache, OldCache, restore_prefix.Cache, list])
def test_a_cache_of_one_kind_is_restored_into_another(address, request, kind, other):
    layout = quire.Layout.uniform(request.node.nodeid, layers=3, kv_heads=2, head_dim=64, dtype="f32")
    tokens, kv = some_tokens(150), random_kv(layout, 149)  # the last token's KV is not there yet
    with quire.Store(address, layout) as store:
        assert store.put_cache(tokens, filled(kind, kv), codec="raw").stored == 2
        cache = other()
        assert store.restore_cache(tokens, cache) == 128
        for pair, expected in zip(quire.cache.pairs_of(cache), kv, strict=True):
            for values, original in zip(pair, expected, strict=True):
                assert values.shape == (1, 2, 128, 64) and np.array_equal(values[0], original[:, :128])
        with pytest.raises(ValueError, match="128 tokens already"):
            store.restore_cache(tokens, cache)
        assert store.restore_cache(some_tokens(150, seed=4), other()) == 0


def test_layers_without_kv_are_left_alone(address, request):
    config = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "hidden_size": 256,
              "layer_types": ["linear_attention", "full_attention"] * 2}
    layout = quire.Layout.from_config(config, request.node.nodeid, dtype="f32")
    tokens, kv = some_tokens(64), random_kv(layout, 64)
    cache = LayeredCache(4)
    cache.update(kv[0][0][None], kv[0][1][None], 1), cache.update(kv[1][0][None], kv[1][1][None], 3)
    with quire.Store(address, layout) as store:
        store.put_cache(tokens, cache, codec="raw")
        restored = LayeredCache(4)
        assert store.restore_cache(tokens, restored) == 64
    assert restored.layers[0].keys is None and np.array_equal(restored.layers[3].values[0], kv[1][1])


def test_a_row_of_a_batch(address, layout):
    tokens, first, second = some_tokens(64), random_kv(layout, 64), random_kv(layout, 64, seed=1)
    both = [tuple(np.stack([a, b]) for a, b in zip(*pairs)) for pairs in zip(first, second)]
    with quire.Store(address, layout) as store:
        store.put_cache(tokens, both, batch=1, codec="raw")
        assert np.array_equal(store.get(tokens).layers[0][0], second[0][0])


def test_caches_that_lack_something_are_refused_by_layer(address, layout):
    tokens, kv = some_tokens(256), random_kv(layout, 256)
    with quire.Store(address, layout) as store:
        window = filled(LayeredCache, kv)
        window.layers[1].keys = window.layers[1].keys[:, :, -100:]
        with pytest.raises(ValueError, match="layer 1 of the cache holds 100 of 256 tokens: a sliding-window"):
            store.put_cache(tokens, window)
        with pytest.raises(ValueError, match="layer 0 of the cache is empty"):
            store.put_cache(tokens, LayeredCache(3))
        with pytest.raises(ValueError, match="2 layers: the layout names layer 2"):
            store.put_cache(tokens, kv[:2])
        with pytest.raises(TypeError, match="a cache of type int"):
            store.put_cache(tokens, 3)


def run_example(role, at, *more):
    script = ROOT / "services/store/python/examples/restore_prefix.py"
    done = subprocess.run([sys.executable, str(script), role, "--store", at, *more], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("codec, divergence", [("raw", 1e-3), ("tq:k4v4", 0.05)])
def test_another_engines_prefix_is_restored(codec, divergence):
    with started() as (_, at):
        assert run_example("restore", at)["restored_tokens"] == 0
        assert run_example("put", at, "--codec", codec)["stored_blocks"] == 4
        assert run_example("put", at, "--codec", codec)["already"] == 4
        restored = run_example("restore", at)
    assert restored["restored_tokens"] == 256 and restored["computed_tokens"] == 44
    assert 0 < restored["divergence_nats"] < divergence

"""The caches of engines, by their shape: transformers' DynamicCache old and new, and lists of (keys, values)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .values import is_torch


def pairs_of(cache: Any) -> list[tuple[Any, Any]]:
    """(keys, values) of each layer of the model; (None, None) of a layer that has none."""
    if hasattr(cache, "layers"):
        return [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in cache.layers]
    if hasattr(cache, "key_cache"):
        return list(zip(cache.key_cache, cache.value_cache))
    if isinstance(cache, Sequence):
        return [tuple(pair)[:2] for pair in cache]
    raise TypeError(f"a cache of type {type(cache).__name__}: layers, key_cache and value_cache, or (keys, values) pairs are wanted")


def wants_torch(cache: Any) -> bool:
    """transformers' own caches, and whatever holds tensors already."""
    if any(base.__module__.partition(".")[0] == "transformers" for base in type(cache).__mro__):
        return True
    return not isinstance(cache, Sequence) and any(is_torch(keys) for keys, _ in pairs_of(cache))


def held_tokens(cache: Any) -> int:
    if hasattr(cache, "get_seq_length"):
        return int(cache.get_seq_length())
    return max((int(keys.shape[-2]) for keys, _ in pairs_of(cache) if keys is not None and len(keys.shape) >= 3), default=0)


def fill(cache: Any, layer: int, keys: Any, values: Any) -> None:
    """Hands a layer's [1, heads, tokens, d] to an empty cache."""
    if hasattr(cache, "update"):
        cache.update(keys, values, layer)
    elif hasattr(cache, "key_cache"):
        while len(cache.key_cache) <= layer:
            cache.key_cache.append(None)
            cache.value_cache.append(None)
        cache.key_cache[layer], cache.value_cache[layer] = keys, values
    elif hasattr(cache, "layers"):
        cache.layers[layer].keys, cache.layers[layer].values = keys, values
    elif isinstance(cache, list):
        while len(cache) <= layer:
            cache.append((None, None))
        cache[layer] = (keys, values)
    else:
        raise TypeError(f"a cache of type {type(cache).__name__} has no update, key_cache or layers, and is no list")

"""Client of quire-store: KV caches of language models, kept as compressed codes and found again by their tokens.

    layout = quire.Layout.from_config(config, model="org/model@revision")
    with quire.Store("127.0.0.1:50061", layout) as store:
        store.put_cache(tokens, cache)                 # of a transformers DynamicCache, or any like it
        restored = store.restore_cache(tokens, empty)  # how many of `tokens` need not be computed
"""

from .client import BlockInfo, Kv, Prefix, PutResult, Store, TierStats, Tls
from .errors import StoreError
from .keys import BLOCK_TOKENS, block_key, block_keys, root_key
from .layers import LayerKv, LayerStream
from .layout import Layer, Layout, Part, Stream

__all__ = ["BLOCK_TOKENS", "BlockInfo", "Kv", "Layer", "LayerKv", "LayerStream", "Layout", "Part", "Prefix", "PutResult", "Store",
           "StoreError", "Stream", "TierStats", "Tls", "block_key", "block_keys", "root_key"]

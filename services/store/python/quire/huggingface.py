"""From a Hugging Face config.json to the fields of a Layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .layout import Layer, Stream

_DTYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32", "half": "f16", "float": "f32"}
_WITHOUT_KV = ("linear_attention", "mamba", "conv", "recurrent", "ssm")
# Their keys depend on how long the whole sequence is, so a prefix's KV is not the prefix's alone.
_LENGTH_DEPENDENT = ("dynamic", "longrope", "su")


def layout_fields(config: Mapping[str, Any], dtype: str | None, latent: bool, rope_state: str | None) -> dict[str, Any]:
    text = config.get("text_config") or config.get("llm_config") or config
    count = _number(text, "num_hidden_layers", "n_layer", "num_layers")
    shape = _latent_shape(text) if latent else _shape(text)
    kinds = _layer_types(text, count)
    shared = int(text.get("num_kv_shared_layers") or 0)  # the last layers use another layer's KV
    layers, numbers = [], []
    for number, kind in enumerate(kinds[:count - shared]):
        if kind in _WITHOUT_KV:
            continue
        window = _window(text) if kind in ("sliding_attention", "chunked_attention") else 0
        layers.append(Layer(tuple(Stream(stream, heads, dim, window) for stream, heads, dim in shape)))
        numbers.append(number)
    if not layers:
        raise ValueError("config: no layer has KV")
    return {"layers": tuple(layers), "model_layers": tuple(numbers), "dtype": dtype or _dtype(config, text),
            "rope_state": _rope_state(text) if rope_state is None else rope_state}


def _number(config: Mapping[str, Any], *names: str) -> int:
    for name in names:
        if isinstance(value := config.get(name), int) and not isinstance(value, bool):
            return value
    raise ValueError(f"config: {names[0]} is missing or no integer")


def _shape(config: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    heads = _number(config, "num_attention_heads", "n_head")
    if config.get("kv_lora_rank"):  # transformers caches what the latent was expanded to
        key = _number(config, "qk_nope_head_dim") + _number(config, "qk_rope_head_dim")
        return [("key", heads, key), ("value", heads, _number(config, "v_head_dim"))]
    if config.get("multi_query") is True and not config.get("new_decoder_architecture"):
        kv_heads = 1  # Falcon 7B, GPT-BigCode
    else:
        kv_heads = next((config[name] for name in ("num_key_value_heads", "num_kv_heads", "multi_query_group_num")
                         if config.get(name)), heads)
    dim = config.get("head_dim") or config.get("kv_channels")
    if not dim:
        hidden = _number(config, "hidden_size", "n_embd", "d_model")
        if hidden % heads != 0:
            raise ValueError(f"config: hidden_size {hidden} is no multiple of num_attention_heads {heads}; head_dim is missing")
        dim = hidden // heads
    return [("key", kv_heads, dim), ("value", kv_heads, config.get("v_head_dim") or dim)]


def _latent_shape(config: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    return [("latent", 1, _number(config, "kv_lora_rank") + _number(config, "qk_rope_head_dim"))]


def _window(config: Mapping[str, Any]) -> int:
    return _number(config, "sliding_window", "attention_chunk_size")


def _layer_types(config: Mapping[str, Any], count: int) -> list[str]:
    """One of full_attention, sliding_attention, … for each layer; older configs say it in ways of their own."""
    types = config.get("layer_types") or config.get("layers_block_type")
    if types:
        if len(types) != count:
            raise ValueError(f"config: layer_types has {len(types)} entries for {count} layers")
        return [str(kind) for kind in types]
    if not config.get("sliding_window") or config.get("use_sliding_window") is False:
        return ["full_attention"] * count
    model = str(config.get("model_type", ""))
    if pattern := config.get("sliding_window_pattern", 6 if model.startswith("gemma3") else None):
        return ["full_attention" if (i + 1) % int(pattern) == 0 else "sliding_attention" for i in range(count)]
    if model == "gemma2":
        return ["full_attention" if i % 2 else "sliding_attention" for i in range(count)]
    first = int(config.get("max_window_layers") or 0) if model.startswith("qwen") else 0
    return ["full_attention"] * min(first, count) + ["sliding_attention"] * max(0, count - first)


def _dtype(*configs: Mapping[str, Any]) -> str:
    for config in configs:
        for name in ("torch_dtype", "dtype"):
            if isinstance(value := config.get(name), str):
                value = value.removeprefix("torch.")
                if value not in _DTYPES:
                    raise ValueError(f"config: {name} is {value}: bfloat16, float16 or float32; give dtype")
                return _DTYPES[value]
    return "bf16"


def _rope_state(config: Mapping[str, Any]) -> str:
    """Canonical: JSON with sorted keys of what changes K, defaults written out, so that old and new configs agree."""
    parameters = config.get("rope_parameters")
    by_type = None
    if isinstance(parameters, Mapping) and parameters and all(isinstance(v, Mapping) for v in parameters.values()):
        by_type = {str(kind): _rope(config, v) for kind, v in parameters.items()}  # one for each type of layer
    elif config.get("rope_local_base_freq"):
        by_type = {"full_attention": _rope(config, None),
                   "sliding_attention": {"base": float(config["rope_local_base_freq"]), "type": "default"}}
    elif "rope_theta" not in config and not parameters and "rotary_emb_base" not in config:
        if config.get("alibi") or config.get("position_embedding_type") in ("absolute", "alibi") or "n_positions" in config:
            return ""  # positions do not touch K
    state: dict[str, Any] = {"model_type": str(config.get("model_type", ""))}  # it says which channels are paired
    state |= {"layers": by_type} if by_type else _rope(config, parameters)
    return "hf;" + json.dumps(state, sort_keys=True, separators=(",", ":"))


def _rope(config: Mapping[str, Any], parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    scaling = dict(parameters or config.get("rope_scaling") or {})
    kind = str(scaling.pop("rope_type", None) or scaling.pop("type", None) or "default")
    scaling.pop("type", None)
    if kind in _LENGTH_DEPENDENT:
        raise ValueError(f"config: rope type {kind}: keys depend on the length of the whole sequence; give rope_state if the "
                         "engine fixes it")
    base = scaling.pop("rope_theta", None) or config.get("rope_theta") or config.get("rotary_emb_base") or 10000.0
    partial = scaling.pop("partial_rotary_factor", None) or config.get("partial_rotary_factor") or config.get("rotary_pct") or 1.0
    out: dict[str, Any] = {"type": kind, "base": float(base)}
    if partial != 1.0:
        out["partial"] = float(partial)
    if kind != "default":
        out |= {name: float(v) if isinstance(v, (int, float)) and not isinstance(v, bool) else v
                for name, v in scaling.items() if v is not None}
    elif "mrope_section" in scaling:
        out["mrope_section"] = scaling["mrope_section"]
    return out

"""Layouts: canonical bytes against the C++ code's, and what is read from Hugging Face configs."""

import dataclasses
import json
import struct

import pytest

import quire
from conftest import ROOT
from quire import Layer, Layout

LLAMA_31_8B = {"model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32,
               "rope_theta": 500000.0, "torch_dtype": "bfloat16",
               "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
                                "rope_type": "llama3"}}


def parse(data):
    """A layout of canonical bytes, read by the table in core/block/README.md."""
    magic, _, dtype, _, rotation, codebook, tokens, seed = struct.unpack_from("<4sHBBHHIQ", data)
    assert (magic, rotation, codebook, tokens) == (b"QKVL", 1, 1, 64)
    digest, at = data[24:56], 56
    (size,) = struct.unpack_from("<I", data, at)
    rope, at = data[at + 4:at + 4 + size].decode(), at + 4 + size
    (count,), at = struct.unpack_from("<I", data, at), at + 4
    layers = []
    for _ in range(count):
        (streams,), at = struct.unpack_from("<I", data, at), at + 4
        layers.append(Layer(tuple(quire.Stream(("key", "value", "latent")[kind], *rest) for kind, *rest in
                                  (struct.unpack_from("<IIII", data, at + 16 * i) for i in range(streams)))))
        at += 16 * streams
    assert at == len(data)
    return Layout(digest, tuple(layers), ("bf16", "f16", "f32")[dtype], rope, seed)


@pytest.mark.parametrize("path", sorted((ROOT / "tests/data/format_v1").glob("d*_*.json")), ids=lambda path: path.stem)
def test_canonical_bytes_and_fingerprints_are_the_goldens(path):
    golden = json.loads(path.read_text())
    layout = parse(bytes.fromhex(golden["layout"]))
    assert layout.serialized.hex() == golden["layout"]
    assert layout.fingerprint.hex() == golden["fingerprint"]


def test_llama():
    layout = Layout.from_config(LLAMA_31_8B, "meta-llama/Llama-3.1-8B@main")
    assert layout.layers == (Layer.of(heads=8, dim=128),) * 32
    assert layout.dtype == "bf16"
    assert json.loads(layout.rope_state.removeprefix("hf;")) == {
        "base": 500000.0, "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "model_type": "llama",
        "original_max_position_embeddings": 8192.0, "type": "llama3"}
    # The same, as newer configs say it.
    new = {k: v for k, v in LLAMA_31_8B.items() if k not in ("rope_scaling", "rope_theta", "torch_dtype")}
    new |= {"dtype": "bfloat16", "rope_parameters": LLAMA_31_8B["rope_scaling"] | {"rope_theta": 500000.0}}
    assert Layout.from_config(new, "meta-llama/Llama-3.1-8B@main").fingerprint == layout.fingerprint


@pytest.mark.parametrize("change", [
    {"rope_theta": 10000.0}, {"rope_scaling": None}, {"partial_rotary_factor": 0.5}, {"torch_dtype": "float16"},
    {"num_key_value_heads": 4}, {"head_dim": 64}, {"num_hidden_layers": 31}, {"model_type": "cohere"},
    {"rope_scaling": LLAMA_31_8B["rope_scaling"] | {"factor": 4.0}}])
def test_everything_that_changes_kv_changes_the_fingerprint(change):
    assert Layout.from_config(LLAMA_31_8B | change, "m").fingerprint != Layout.from_config(LLAMA_31_8B, "m").fingerprint


def test_what_does_not_change_kv_does_not():
    base = Layout.from_config(LLAMA_31_8B, "m").fingerprint
    for change in ({"max_position_embeddings": 1}, {"intermediate_size": 3}, {"sliding_window": None}, {"partial_rotary_factor": 1.0}):
        assert Layout.from_config(LLAMA_31_8B | change, "m").fingerprint == base, change
    assert Layout.from_config(LLAMA_31_8B, "other").fingerprint != base


def windows(layout):
    return [layer.streams[0].sliding_window for layer in layout.layers]


def test_sliding_windows():
    base = {"hidden_size": 2304, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 4096}
    assert windows(Layout.from_config(base | {"model_type": "gemma2", "num_hidden_layers": 4}, "m")) == [4096, 0, 4096, 0]
    assert windows(Layout.from_config(base | {"model_type": "mistral", "num_hidden_layers": 2}, "m")) == [4096, 4096]
    assert windows(Layout.from_config(base | {"model_type": "mistral", "num_hidden_layers": 2, "sliding_window": None}, "m")) == [0, 0]
    assert windows(Layout.from_config(base | {"model_type": "qwen2", "num_hidden_layers": 2, "use_sliding_window": False}, "m")) == [0, 0]
    assert windows(Layout.from_config(base | {"model_type": "qwen2", "num_hidden_layers": 3, "use_sliding_window": True,
                                              "max_window_layers": 1}, "m")) == [0, 4096, 4096]
    types = ["sliding_attention", "full_attention", "sliding_attention"]
    assert windows(Layout.from_config(base | {"model_type": "gpt_oss", "num_hidden_layers": 3, "layer_types": types}, "m")) == [4096, 0, 4096]


def test_gemma3_has_two_ropes_and_a_text_config():
    text = {"model_type": "gemma3_text", "hidden_size": 640, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
            "num_hidden_layers": 7, "sliding_window": 512, "sliding_window_pattern": 6, "rope_theta": 1e6, "rope_local_base_freq": 10000.0}
    layout = Layout.from_config({"model_type": "gemma3", "text_config": text, "torch_dtype": "bfloat16"}, "m")
    assert windows(layout) == [512] * 5 + [0, 512]
    assert json.loads(layout.rope_state.removeprefix("hf;"))["layers"] == {
        "full_attention": {"base": 1e6, "type": "default"}, "sliding_attention": {"base": 1e4, "type": "default"}}
    nested = {k: v for k, v in text.items() if not k.startswith("rope")} | {"rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1e6}, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}}
    assert Layout.from_config(nested, "m").fingerprint == layout.fingerprint


def test_latents_or_what_they_are_expanded_to():
    config = {"model_type": "deepseek_v3", "hidden_size": 7168, "num_attention_heads": 128, "num_key_value_heads": 128,
              "num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
    assert Layout.from_config(config, "m", latent=True).layers[0] == Layer((quire.Stream("latent", 1, 576),))
    assert Layout.from_config(config, "m").layers[60] == Layer.of(128, 192, value_dim=128)


def test_other_names_and_layers_without_kv():
    gpt2 = {"model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024}
    layout = Layout.from_config(gpt2, "gpt2")
    assert layout.layers == (Layer.of(12, 64),) * 12 and layout.rope_state == ""
    falcon = {"model_type": "falcon", "num_hidden_layers": 2, "num_attention_heads": 71, "hidden_size": 4544, "multi_query": True}
    assert Layout.from_config(falcon, "m").layers[0] == Layer.of(1, 64)
    hybrid = {"num_hidden_layers": 4, "num_attention_heads": 16, "num_key_value_heads": 2, "hidden_size": 2048, "head_dim": 256,
              "layer_types": ["linear_attention", "full_attention"] * 2, "partial_rotary_factor": 0.25}
    layout = Layout.from_config(hybrid, "m")
    assert len(layout.layers) == 2 and layout.model_layers == (1, 3)


@pytest.mark.parametrize("change, message", [
    ({"num_hidden_layers": None}, "num_hidden_layers"), ({"num_attention_heads": "8"}, "num_attention_heads"),
    ({"hidden_size": 4097}, "head_dim is missing"), ({"head_dim": 100}, "head dimension 100"), ({"num_hidden_layers": 1025}, "1025 layers"),
    ({"layer_types": ["full_attention"]}, "1 entries for 32"), ({"layer_types": ["mamba"] * 32}, "no layer has KV"),
    ({"torch_dtype": "float8_e4m3fn"}, "float8"), ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "length of the whole sequence"),
    ({"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0]}}, "longrope")])
def test_what_cannot_be_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        Layout.from_config(LLAMA_31_8B | change, "m")
    if "rope_scaling" in change:
        assert Layout.from_config(LLAMA_31_8B | change, "m", rope_state="fixed at 4096").rope_state == "fixed at 4096"


def test_wrong_layouts_are_refused():
    good = Layout.uniform("m", 2, 2, 64)
    for field, value, message in (("model_digest", b"x", "1 bytes"), ("dtype", "int8", "int8"), ("layers", (), "0 layers"),
                                  ("rope_state", "x" * 4097, "4097"), ("layers", (Layer.of(0, 64),), "0 KV heads"),
                                  ("layers", (Layer((quire.Stream("value", 1, 64),)),), "key and value"),
                                  ("layers", (Layer((quire.Stream("key", 1, 64), quire.Stream("value", 2, 64))),), "differ")):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(good, **{field: value}, **({"model_layers": ()} if field == "layers" else {}))

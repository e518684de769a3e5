"""Arrays and tensors into raw form and back, without a store. A stand-in with torch's interface takes torch's place."""

import struct
import sys
import types

import numpy as np
import pytest

import quire
from conftest import random_kv
from quire.values import RawForm, to_numpy, to_torch


def bf16_of(value):
    """The nearest bf16's bits, ties to even, by comparing neighbours."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    below, rest = bits >> 16, bits & 0xFFFF
    return below + (rest > 0x8000 or (rest == 0x8000 and below % 2 == 1))


def form(layout, dtype=None, part=None):
    return RawForm(layout, part or layout.whole, dtype or layout.dtype)


def test_raw_form_is_layer_by_layer_keys_then_values_each_token_head_channel():
    layout = quire.Layout(bytes(32), (quire.Layer.of(2, 16), quire.Layer.of(3, 32, value_dim=16)), "f32")
    kv = random_kv(layout, 130)
    raw = np.frombuffer(form(layout).encode(kv, 0, 1), "<f4")
    expected = [kv[layer][stream][head, token, channel] for layer in range(2) for stream in range(2) for token in range(64, 128)
                for head in range(layout.layers[layer].streams[0].heads) for channel in range(layout.layers[layer].streams[stream].dim)]
    assert raw.tolist() == expected


def test_f32_is_rounded_to_bf16_to_nearest_even():
    random = np.random.default_rng(0)
    values = np.concatenate([random.standard_normal(2000).astype(np.float32), random.integers(0, 2**31 - 2**24, 2000, np.uint32).view(np.float32),
                             np.array([0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001, 0x80000000, 1], np.uint32).view(np.float32)])
    values = np.resize(values, (1, 64 * 64, 16)).astype(np.float32)
    layout = quire.Layout(bytes(32), (quire.Layer.of(1, 16),), "bf16")
    raw = np.frombuffer(form(layout).encode([(values, values)], 0, 0), "<u2")[:64 * 16]
    assert raw.tolist() == [bf16_of(v) for v in values[0, :64].reshape(-1)]
    nan = np.full((1, 64, 16), np.float32("nan"))
    assert np.all(np.frombuffer(form(layout).encode([(nan, nan)], 0, 0), "<u2") == 0x7FC0)


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
def test_every_type_goes_in_and_comes_back(dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    layout = quire.Layout(bytes(32), (quire.Layer.of(2, 16),) * 2, dtype)
    kv = [tuple(np.asarray(x, ml_dtypes.bfloat16).astype(np.float32) for x in pair) for pair in random_kv(layout, 128)]
    raw = form(layout)
    expected = bytes(raw.encode(kv, 0, 1))
    native = {"bf16": ml_dtypes.bfloat16, "f16": np.float16, "f32": np.float32}
    for convert in (lambda x: x.astype(ml_dtypes.bfloat16), lambda x: x.astype(ml_dtypes.bfloat16).view(np.uint16), lambda x: x.astype(np.float64),
                    lambda x: x[None], lambda x: np.asfortranarray(x)):
        assert bytes(raw.encode([tuple(map(convert, pair)) for pair in kv], 0, 1)) == expected
    # f16 holds fewer exponents but all digits of these values.
    assert bytes(raw.encode([tuple(x.astype(np.float16) for x in pair) for pair in kv], 0, 1)) == expected
    rows = np.frombuffer(expected, np.uint8).reshape(1, -1)
    for layer in range(2):
        begin = raw.offsets[layer]
        for values, original in zip(raw.decode_layer(layer, rows[:, begin:begin + raw.layer_bytes[layer]]), kv[layer]):
            values = to_numpy(values, dtype)
            assert values.dtype == native[dtype] and values.shape == (2, 64, 16)
            assert np.array_equal(values.astype(np.float32), original[:, 64:].astype(native[dtype]).astype(np.float32))


def test_bf16_comes_as_bits_without_ml_dtypes(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    bits = np.arange(4, dtype=np.uint16)
    assert to_numpy(bits, "bf16").dtype == np.uint16


def test_shapes_are_checked_by_layer():
    layout = quire.Layout(bytes(32), (quire.Layer.of(2, 16),) * 2, "f32")
    kv = random_kv(layout, 100)
    assert form(layout).check(kv, 0) == 100
    assert form(layout).check([kv[0], tuple(x[:, :70] for x in kv[1])], 0) == 70
    for wrong, message in (([kv[0]], "1 layers: the layout has 2"), ([kv[0], tuple(x[:1] for x in kv[1])], "layer 1: keys have 1 heads of 16"),
                           ([kv[0], (kv[1][0], kv[1][1][..., :8])], "layer 1: values have 2 heads of 8"), ([kv[0], (kv[1][0][0],) * 2], "is wanted")):
        with pytest.raises(ValueError, match=message):
            form(layout).check(wrong, 0)
    with pytest.raises(TypeError, match="int64"):
        form(layout).encode([tuple(x.astype(np.int64) for x in pair) for pair in kv], 0, 0)


def test_a_part_has_its_heads_and_layers_only():
    layout = quire.Layout(bytes(32), (quire.Layer.of(4, 16), quire.Layer.of(1, 16), quire.Layer.of(4, 16)), "f16")
    raw = form(layout, part=quire.Part(1, 3, 1, 3))
    assert raw.layer_bytes == [0, 64 * 2 * 2 * 16 * 2]


class Tensor:
    """torch.Tensor's interface, as far as it is used, over NumPy."""

    def __init__(self, array, dtype, device="cpu"):
        self.array, self.dtype, self.device = array, dtype, device

    shape = property(lambda self: self.array.shape)

    def __getitem__(self, index):
        return Tensor(self.array[index], self.dtype, self.device)

    def detach(self):
        return self

    def cpu(self):
        return Tensor(self.array, self.dtype)

    def to(self, device):
        return Tensor(self.array, self.dtype, device)

    def contiguous(self):
        return Tensor(np.ascontiguousarray(self.array), self.dtype, self.device)

    def view(self, dtype):
        return Tensor(self.array, dtype, self.device)

    def numpy(self):
        assert self.device == "cpu" and self.dtype != "bfloat16", "torch has no such conversion"
        return self.array


Tensor.__module__ = "torch"


@pytest.fixture
def torch(monkeypatch):
    """Tensors keep bf16 as int16, as torch's view does."""
    module = types.SimpleNamespace(bfloat16="bfloat16", int16="int16", from_numpy=lambda array: Tensor(array, str(array.dtype)))
    monkeypatch.setitem(sys.modules, "torch", module)
    return module


def test_tensors_go_in_and_come_out(torch):
    layout = quire.Layout(bytes(32), (quire.Layer.of(2, 16),), "bf16")
    bits = np.random.default_rng(0).integers(0, 0x7F00, (1, 2, 64, 16)).astype(np.uint16)
    tensor = Tensor(bits.view(np.int16), torch.bfloat16, "cuda:0")
    raw = form(layout).encode([(tensor, tensor)], 0, 0)
    assert np.array_equal(np.frombuffer(raw, "<u2"), np.tile(bits[0].transpose(1, 0, 2).reshape(-1), 2))
    back = to_torch(bits, "bf16", "cuda:0")
    assert (back.dtype, back.device) == (torch.bfloat16, "cuda:0") and np.array_equal(back.array.view(np.uint16), bits)
    assert to_torch(np.zeros(3, np.float32), "f32").device == "cpu"
    half = Tensor(np.ones((2, 64, 16), np.float16), "float16")
    assert np.all(np.frombuffer(form(layout).encode([(half, half)], 0, 0), "<u2") == 0x3F80)


def test_torch_is_not_imported_for_arrays():
    assert "torch" not in sys.modules

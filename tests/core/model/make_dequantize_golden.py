#!/usr/bin/env python3
"""Golden data of dequantize_test.cc: blocks of every type and what an independent implementation makes of them.

    pip install gguf==0.19.0 numpy==2.4.6
    python3 make_dequantize_golden.py > golden/dequantize.json

The blocks are random bytes; only their half-precision scales are drawn, so that they are finite (and some zero, negative or
subnormal). F16 and BF16 hold special values as well.
"""
import json

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize

rng = np.random.default_rng(20240607)
SCALES = np.array([0.0, 6e-8, 3e-6, -0.0123, 1.5, 0.0417, -7.25, 0.1], dtype=np.float16)

# type: (bytes a block, offsets of its half-precision scales, blocks)
LAYOUTS = {T.Q8_0: (34, [0], 8), T.Q4_0: (18, [0], 8), T.Q4_1: (20, [0, 2], 8), T.Q4_K: (144, [0, 2], 4), T.Q6_K: (210, [208], 4)}
ADDED = {T.Q5_0: (22, [0], 8), T.Q5_1: (24, [0, 2], 8), T.Q5_K: (176, [0, 2], 4)}  # drawn last: the others stay as they were


def quantized(kind, layout):
    size, offsets, blocks = layout
    data = rng.integers(0, 256, (blocks, size), dtype=np.uint8)
    for row in range(blocks):
        for at in offsets:
            data[row, at:at + 2] = np.frombuffer(rng.choice(SCALES).tobytes(), np.uint8)
    return data


def case(kind, data):
    out = dequantize(data, kind).astype(np.float32).reshape(-1)
    return {"type": kind.name, "data": data.tobytes().hex(), "floats": out.tobytes().hex()}


def main():
    special = np.array([0, 0x8000, 1, 0x8001, 0x03FF, 0x0400, 0x3C00, 0x7BFF, 0x7C00, 0xFC00, 0x7E00, 0x7F80, 0xFF80, 0x3F80, 0x0080, 0x42F6], np.uint16)
    halves = np.concatenate([special, rng.integers(0, 0x7C00, 48, dtype=np.uint16)])
    cases = [case(kind, quantized(kind, layout)) for kind, layout in LAYOUTS.items()]
    cases += [case(kind, halves.view(np.uint8)) for kind in (T.F16, T.BF16)]
    cases.append(case(T.F32, rng.standard_normal(32).astype(np.float32)))
    cases += [case(kind, quantized(kind, layout)) for kind, layout in ADDED.items()]
    print("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]")


main()

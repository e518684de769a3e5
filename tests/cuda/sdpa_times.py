"""Times Torch's bf16 attention at quire-attention-bench's shapes: one query token, 32 query and 8 KV heads, d=128.

Prints "batch tokens microseconds microseconds" for each shape: of calls replayed from a CUDA graph, and of calls made one after
the other; each of the fastest of all SDPA backends, of two memory layouts, and of a group's query heads taken as heads or as
rows. Everything that was tried goes to stderr. Calls go over several K and V, so that no cache holds them.

    python3 sdpa_times.py > FILE
"""

import statistics
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

HEADS, KV_HEADS, DIM = 32, 8, 128
SHAPES = [(1, 32768), (1, 131072), (16, 8192), (16, 32768), (1, 2048)]
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH]
LAUNCHES = 16


def tensors(batch, tokens, token_major, sets):
    def one():
        if token_major:
            return torch.randn(batch, tokens, KV_HEADS, DIM, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
        return torch.randn(batch, KV_HEADS, tokens, DIM, device="cuda", dtype=torch.bfloat16)

    return [(one(), one()) for _ in range(sets)]


def microseconds(call, sets):
    for i in range(3):
        call(*sets[i % len(sets)])
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(LAUNCHES):
            call(*sets[i % len(sets)])

    def median(run):
        times = []
        for _ in range(24):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / LAUNCHES * 1e3)
        return statistics.median(times[3:])

    def one_by_one():
        for i in range(LAUNCHES):
            call(*sets[i % len(sets)])

    return median(graph.replay), median(one_by_one)


def main():
    print("torch", torch.__version__, torch.cuda.get_device_name(), file=sys.stderr)
    for batch, tokens in SHAPES:
        best = (float("inf"), float("inf"))
        for token_major in (False, True):
            raw = batch * tokens * KV_HEADS * DIM * 4
            sets = tensors(batch, tokens, token_major, max(2, min(8, (600 << 20) // raw)))
            q = torch.randn(batch, HEADS, 1, DIM, device="cuda", dtype=torch.bfloat16)
            rows = q.view(batch, KV_HEADS, HEADS // KV_HEADS, DIM)
            ways = {
                "heads": lambda k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
                "rows": lambda k, v: F.scaled_dot_product_attention(rows, k, v),
            }
            for backend in BACKENDS:
                for name, call in ways.items():
                    try:
                        with sdpa_kernel(backend):
                            us = microseconds(call, sets)
                    except RuntimeError as error:
                        print(batch, tokens, token_major, backend, name, "-", str(error).split("\n")[0][:90], file=sys.stderr)
                        torch.cuda.synchronize()
                        continue
                    print(batch, tokens, "BLHD" if token_major else "BHLD", str(backend), name, f"{us[0]:.1f} {us[1]:.1f}", file=sys.stderr)
                    best = tuple(map(min, best, us))
            del sets
            torch.cuda.empty_cache()
        print(batch, tokens, f"{best[0]:.2f} {best[1]:.2f}", flush=True)


if __name__ == "__main__":
    main()

"""Quire's codec beside PyPI's `turboquant` 0.2.0 on the same vectors: how fast, and how far off.

    compare_turboquant.py --quire-bench BIN [--quire-cuda-bench BIN] [--dim 128] [--bits 4 3 2] [--json]

Wants torch, numpy, scipy and turboquant 0.2.0 importable. With --quire-cuda-bench both sides also run on the GPU. Two kinds of
vectors: `isotropic` (normal, what the textbook assumes) and `keys` (lengths that vary, and in K a mean that some channels
carry, as models have it). Errors are the sum of squared misses over the sum of squares; rates are bf16 bytes a second,
quantise alone and dequantise alone, best of several.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

# Since NumPy 2.4 only the new name is there; turboquant 0.2.0 calls the old one.
if not hasattr(np, "trapz"):
    np.trapz = np.trapezoid

import torch
from turboquant.core import TurboQuantMSE

HEADS, TOKENS = 8, 64


def vectors(kind, blocks, dim):
    """bf16 [block][K, V][64 tokens][8 heads][dim] as a torch tensor."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(blocks, 2, TOKENS, HEADS, dim, generator=generator)
    if kind == "keys":
        x *= torch.exp(0.3 * torch.randn(blocks, 2, TOKENS, HEADS, 1, generator=generator))
        channels = torch.arange(dim)
        mean = torch.where(channels % 16 == 3, 6.0, 0.5 * (channels * 37 % 5) - 1.0)
        x[:, 0] += mean
    return x.to(torch.bfloat16)


def best_seconds(device, work, rounds=5):
    best = float("inf")
    for i in range(rounds + 1):
        if device == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        result = work()
        if device == "cuda":
            torch.cuda.synchronize()
        if i > 0:  # the first warms up
            best = min(best, time.perf_counter() - begin)
    return best, result


def run_turboquant(x, dim, bits, device, threads):
    torch.set_num_threads(threads)
    quantiser = TurboQuantMSE(dim, bits, device=device)
    moved = x.to(device)
    encode, (indices, norms) = best_seconds(device, lambda: quantiser.quantize(moved))
    decode, restored = best_seconds(device, lambda: quantiser.dequantize(indices, norms).to(torch.bfloat16))
    gigabytes = x.numel() * 2e-9
    miss = (restored.float() - moved.float()).double().pow(2).sum(dim=(0, 2, 3, 4))
    energy = moved.double().pow(2).sum(dim=(0, 2, 3, 4))
    error_k, error_v = (miss / energy).tolist()
    return {"encode": gigabytes / encode, "decode": gigabytes / decode, "error-k": error_k, "error-v": error_v}


def run_quire(command, spec):
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = [json.loads(line) for line in output.splitlines()]
    return {line["name"].removeprefix(spec + "/"): line["value"] for line in lines}


def compare(options, device, kind, bits, file, x):
    spec = f"tq:k{bits}v{bits}"
    if device == "cuda":
        command = [options.quire_cuda_bench, f"--vectors={file}", f"--dims={options.dim}", f"--codecs={spec}"]
    else:
        command = [options.quire_bench, "vectors", "--json", "--file", file, "--dim", str(options.dim), "--codec", spec,
                   "--threads", str(options.threads)]
    ours = run_quire(command, spec)
    theirs = run_turboquant(x, options.dim, bits, device, options.threads)
    hardware = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {options.threads} threads"
    context = f"{hardware}, {kind}, d={options.dim}, {bits} bits, {x.numel() * 2 >> 20} MiB raw"
    for what in ("encode", "decode", "error-k", "error-v"):
        rate = what in ("encode", "decode")
        line = {"name": f"{what}/{device}/{kind}/k{bits}", "value": ours[what], "unit": "GB/s raw" if rate else "of energy",
                "baseline": "turboquant 0.2.0", "baseline_value": theirs[what], "ratio": ours[what] / theirs[what],
                "context": context}
        if options.json:
            print(json.dumps(line), flush=True)
        else:
            times = f"{line['ratio']:8.1f} times as fast" if rate else f"{1 / line['ratio']:8.1f} times closer"
            print(f"{line['name']:<28} {line['value']:10.4g} {line['unit']:<10} {theirs[what]:10.4g} {times}   {context}",
                  flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quire-bench", required=True)
    parser.add_argument("--quire-cuda-bench")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 3, 2])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cpu-mib", type=int, default=16, help="raw MiB on the CPU")
    parser.add_argument("--gpu-mib", type=int, default=256, help="raw MiB on the GPU; turboquant takes 32 times as much beside it")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    devices = [("cpu", options.cpu_mib)]
    if options.quire_cuda_bench:
        if not torch.cuda.is_available():
            sys.exit("compare_turboquant.py: --quire-cuda-bench, but torch sees no GPU")
        devices.append(("cuda", options.gpu_mib))
    for device, mib in devices:
        blocks = max(1, (mib << 20) // (2 * TOKENS * HEADS * options.dim * 2))
        for kind in ("isotropic", "keys"):
            x = vectors(kind, blocks, options.dim)
            with tempfile.NamedTemporaryFile(suffix=".bf16") as file:
                file.write(x.view(torch.int16).numpy().tobytes())
                file.flush()
                for bits in options.bits:
                    compare(options, device, kind, bits, file.name, x)


if __name__ == "__main__":
    main()

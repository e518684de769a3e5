"""Fetches nvcc and the CUDA runtime for `make gpu`, as wheels that are unpacked and never installed.

    python fetch_cuda.py build/deps
"""

import pathlib
import re
import sys

import fetch_wheels
from fetch_wheels import Component, Wheel

CUDA = Component("cuda", (
    Wheel("nvidia-cuda-nvcc", "13.0.88", "56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03", 37384532),
    Wheel("nvidia-nvvm", "13.0.88", "c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0", 61601415),
    Wheel("nvidia-cuda-crt", "13.0.88", "2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4", 134086),
    Wheel("nvidia-cuda-cccl", "13.0.85", "e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649", 3120526),
    Wheel("nvidia-cuda-runtime", "13.0.96", "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548", 2243632),
), re.compile(r"nvidia/cu13/(.+)"))

# What nvcc runs, from the folder's top.
PROGRAMS = ("bin/*", "nvvm/bin/*")


def main():
    fetch_wheels.COMPONENTS = (CUDA,)
    fetch_wheels.PIP_TARGET.append("--platform=manylinux_2_12_x86_64")  # the tag of nvvm
    fetch_wheels.main()
    folder = pathlib.Path(sys.argv[1]) / CUDA.name
    for pattern in PROGRAMS:
        for path in folder.glob(pattern):
            if path.is_file():
                path.chmod(0o755)


if __name__ == "__main__":
    main()

"""Who may include whom (the table below is DESIGN.md's graph): no source file includes against it, every include of our own
names a file, and no translation unit sees both LibTorch and generated protobuf headers.

    python include_arrows_test.py SOURCE_DIR BUILD_DIR
"""

import os
import pathlib
import re
import subprocess
import sys
import unittest

SOURCE, BUILD = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])

# Folder of the file → what its #include lines may begin with, of all that is named in GUARDED. The longest folder counts.
ALLOWED = {
    "core": {"core/"},
    "cuda": {"core/", "cuda/"},
    "services/runtime": {"core/", "services/runtime/", "quire/v1/", "grpc"},
    "services/store": {"core/", "cuda/", "services/runtime/", "services/store/", "quire/v1/", "grpc"},
    "services/worker": {"core/", "cuda/", "services/runtime/", "services/store/api/", "services/store/client/",
                        "services/worker/", "quire/v1/", "grpc"},
    "services/worker/engine": {"core/", "cuda/", "services/worker/engine/", "torch/"},
    "services/cli": {"core/", "services/runtime/", "services/store/api/", "services/store/client/", "services/cli/", "quire/v1/",
                     "grpc"},
    "gateway": {"core/", "services/runtime/", "gateway/", "quire/v1/", "grpc"},
    "services/quire": {"core/", "cuda/", "services/", "gateway/", "quire/v1/", "grpc"},
    "tests": {"core/", "cuda/", "services/", "gateway/", "tests/", "quire/v1/", "grpc", "torch/"},
}
GUARDED = ("core/", "cuda/", "services/", "gateway/", "tests/", "quire/v1/", "grpc", "google/protobuf/", "torch/", "ATen/", "c10/",
           "caffe2/", "cuda_runtime", "cuda.h")
# Other names of what the table names.
SAME_AS = {"google/protobuf/": "quire/v1/", "ATen/": "torch/", "c10/": "torch/", "caffe2/": "torch/",
           "cuda_runtime": "cuda/", "cuda.h": "cuda/"}
OURS = ("core/", "cuda/", "services/", "gateway/", "tests/")
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)


def source_files():
    for folder in ("core", "cuda", "services", "gateway", "tests"):
        for path in sorted((SOURCE / folder).rglob("*")):
            if path.suffix in (".h", ".cc", ".cu", ".cuh") and "target" not in path.parts:
                yield path.relative_to(SOURCE)


def area_of(path):
    areas = [area for area in ALLOWED if path.as_posix().startswith(area + "/")]
    return max(areas, key=len) if areas else None


def object_dependencies():
    """Object file → the headers its last compilation read, as ninja noted them; whatever is not built yet is not there."""
    output = subprocess.run(["ninja", "-C", str(BUILD), "-t", "deps"], capture_output=True, text=True, check=True).stdout
    target, headers = None, []
    for line in output.splitlines():
        if line and not line.startswith((" ", "ninja:")):
            target, headers = line.split(":", 1)[0], []
            valid = "(VALID)" in line
        elif line.startswith("    "):
            headers.append(line.strip())
        elif not line and target:
            if valid:
                yield target, headers
            target = None


class IncludeArrows(unittest.TestCase):

    def test_every_include_follows_the_graph(self):
        wrong, files = [], 0
        for path in source_files():
            area = area_of(path)
            files += 1
            if area is None:
                wrong.append(f"{path}: no folder of the graph; add it to this test and to cmake/QuireTarget.cmake")
                continue
            for name in INCLUDE.findall((SOURCE / path).read_text()):
                guard = next((prefix for prefix in GUARDED if name.startswith(prefix)), None)
                if guard is None:
                    continue
                named = SAME_AS.get(guard, name)
                if not any(named.startswith(prefix) for prefix in ALLOWED[area]):
                    wrong.append(f"{path} includes {name}; {area} may include only {', '.join(sorted(ALLOWED[area]))}")
        self.assertGreater(files, 20)
        self.assertEqual([], wrong, "\n" + "\n".join(wrong))

    def test_our_includes_are_paths_from_the_top(self):
        wrong = []
        for path in source_files():
            for name in INCLUDE.findall((SOURCE / path).read_text()):
                ours = name.startswith(OURS)
                if ours and not (SOURCE / name).is_file() and not (BUILD / "generated" / name).is_file():
                    wrong.append(f"{path} includes {name}, which is not there")
                if not ours and path.parts[0] != "tests" and (SOURCE / path).parent.joinpath(name).is_file():
                    wrong.append(f"{path} includes {name} by its bare name; write the path from the top of the repository")
        self.assertEqual([], wrong, "\n" + "\n".join(wrong))

    def test_no_translation_unit_sees_torch_and_protobuf(self):
        torch = os.sep + os.path.join("torch", "include") + os.sep
        wrong, objects, with_torch = [], 0, 0
        for target, headers in object_dependencies():
            objects += 1
            sees_torch = any(torch in header for header in headers)
            sees_proto = any(header.endswith(".pb.h") for header in headers)
            with_torch += sees_torch
            if sees_torch and sees_proto:
                wrong.append(target)
            # The graph again, through everything a file includes indirectly.
            folder = re.match(r"(core|cuda|gateway|services/[a-z]+)/", target)
            if folder and folder.group(1) in ("core", "cuda") and sees_proto:
                wrong.append(f"{target} reaches a .pb.h")
            if sees_torch and not target.startswith(("services/worker/engine/", "tests/")):
                wrong.append(f"{target} reaches LibTorch")
        self.assertGreater(objects, 0, "build first")
        print(f"{objects} objects, {with_torch} with LibTorch")
        self.assertEqual([], wrong, "\n" + "\n".join(wrong))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)

"""The package as it is installed, and its generated files."""

import os
import pathlib
import subprocess
import sys
import zipfile

from conftest import ROOT

PACKAGE = ROOT / "services/store/python"


def test_generated_files_are_of_the_protos(tmp_path):
    protos = sorted(str(path) for path in (ROOT / "proto").rglob("*.proto"))
    subprocess.run([os.environ["QUIRE_PROTOC"], f"-I{ROOT / 'proto'}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", *protos], check=True)
    fresh = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.py*")}
    kept = {path.relative_to(PACKAGE): path.read_text() for path in (PACKAGE / "quire/v1").glob("*_pb2.py*")}
    assert fresh == kept, ("services/store/python/quire/v1 is not of these protos: run "
                           "protoc -Iproto --{python,pyi}_out=services/store/python proto/quire/v1/*.proto")


def test_it_installs_from_the_tree_without_a_network(tmp_path):
    target = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check",
                    "--target", str(target), str(PACKAGE)], check=True, env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"})
    code = "import quire, pathlib; print(pathlib.Path(quire.__file__).parent); quire.Layout.uniform('m', 1, 1, 64).to_proto()"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(target)})
    assert pathlib.Path(shown.stdout.strip()) == target / "quire"
    installed = {str(path.relative_to(target / "quire")) for path in (target / "quire").rglob("*") if path.suffix in (".py", ".pyi")}
    assert installed == {str(path.relative_to(PACKAGE / "quire")) for path in (PACKAGE / "quire").rglob("*") if path.suffix in (".py", ".pyi")}
    assert (target / "quire/py.typed").is_file()


def test_the_same_tree_gives_the_same_wheel(tmp_path):
    code = "import build_backend, sys; print(build_backend.build_wheel(sys.argv[1]))"
    wheels = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made = subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True, capture_output=True, text=True, cwd=PACKAGE)
        wheels.append(tmp_path / name / made.stdout.strip())
    assert wheels[0].read_bytes() == wheels[1].read_bytes()
    with zipfile.ZipFile(wheels[0]) as wheel:
        metadata = wheel.read("quire-0.1.0.dist-info/METADATA").decode()
    assert "Requires-Dist: numpy" in metadata and 'ml_dtypes>=0.3; extra == "bf16"' in metadata

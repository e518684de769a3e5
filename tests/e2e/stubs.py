"""Python stubs made from proto/ alone, as any client outside this repository would make them."""

import importlib
import pathlib
import sys
import tempfile

from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]
_folder = tempfile.TemporaryDirectory(prefix="quire-stubs-")


def _generate():
    protos = sorted(str(path) for path in (ROOT / "proto").rglob("*.proto"))
    code = protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--python_out={_folder.name}", f"--grpc_python_out={_folder.name}", *protos])
    assert code == 0, f"protoc failed with {code}"
    sys.path.insert(0, _folder.name)


_generate()
common, kv_store, codec, store_admin, inference = (
    importlib.import_module(f"quire.v1.{name}_pb2") for name in ("common", "kv_store", "codec", "store_admin", "inference"))
kv_store_grpc, codec_grpc, store_admin_grpc, inference_grpc = (
    importlib.import_module(f"quire.v1.{name}_pb2_grpc") for name in ("kv_store", "codec", "store_admin", "inference"))

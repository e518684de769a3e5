"""Quire as its users start it: all in one process, or a process for each service."""

import contextlib
import re
import urllib.error
import urllib.request

import grpc
import openai

import stubs
from processes import Process, binary, model_path, wait_until

ADDRESS = r"(\d+\.\d+\.\d+\.\d+:\d+)"


class Quire:
    """What the tests need of a running system, however many processes it is."""

    def __init__(self, http, worker, store, processes):
        self.http, self.processes = f"http://{http}", processes
        self.worker_channel, self.store_channel = grpc.insecure_channel(worker), grpc.insecure_channel(store)
        self.inference = stubs.inference_grpc.InferenceStub(self.worker_channel)
        self.kv_store = stubs.kv_store_grpc.KvStoreStub(self.store_channel)
        self.codec = stubs.codec_grpc.CodecStub(self.store_channel)
        self.admin = stubs.store_admin_grpc.StoreAdminStub(self.store_channel)
        self.client = openai.OpenAI(base_url=f"{self.http}/v1", api_key="any", max_retries=0, timeout=300)
        self.model = self.client.models.list().data[0].id

    def chat(self, content, **options):
        return self.client.chat.completions.create(model=self.model, messages=[{"role": "user", "content": content}],
                                                   **{"temperature": 0, "max_tokens": 16} | options)

    def store_stats(self):
        return self.admin.Stats(stubs.store_admin.StatsRequest(), timeout=10)

    def load(self):
        return self.inference.Load(stubs.inference.LoadRequest(), timeout=10)

    def metrics(self, address=None):
        """Metric name with labels → value, of the gateway or of the listener at `address`."""
        with urllib.request.urlopen(f"http://{address}/metrics" if address else f"{self.http}/metrics", timeout=10) as reply:
            text = reply.read().decode()
        return {match[1]: float(match[2]) for match in re.finditer(r"^([^#\s]\S*(?:\{.*\})?) (\S+)$", text, re.MULTILINE)}


def healthy(http):
    try:
        return urllib.request.urlopen(f"http://{http}/health", timeout=10).status == 200
    except urllib.error.HTTPError:
        return False


@contextlib.contextmanager
def all_in_one(folder, *flags):
    process = Process([binary("quire"), "serve", "--model", model_path(), "--listen", "127.0.0.1:0", "--data", folder, *flags])
    try:
        http = process.wait_for(r"ready.*http://" + ADDRESS)[1]
        grpc_address = process.wait_for(r"gRPC.* " + ADDRESS)[1]
        yield Quire(http, grpc_address, grpc_address, {"quire": process})
        assert process.terminate() == 0, process.tail()
    finally:
        process.kill()


@contextlib.contextmanager
def three_services(folder, store_flags=(), worker_flags=()):
    with contextlib.ExitStack() as stack:
        def start(name, *flags):
            process = Process([binary(name), "--listen", "127.0.0.1:0", *flags])
            stack.callback(process.kill)
            return process, process.wait_for("ready.* " + ADDRESS)[1]
        store, store_address = start("quire-store", *store_flags)
        worker, worker_address = start("quire-worker", "--model", model_path(), "--store", store_address, *worker_flags)
        gateway = Process([binary("quire-gateway"), "--listen", "127.0.0.1:0", "--worker", worker_address])
        stack.callback(gateway.kill)
        http = gateway.wait_for("listening on http://" + ADDRESS)[1]
        wait_until(lambda: healthy(http), "the gateway knows its worker")
        yield Quire(http, worker_address, store_address, {"store": store, "worker": worker, "gateway": gateway})
        for process in (gateway, worker, store):
            if process.running():
                assert process.terminate() == 0, f"{process.name}:\n{process.tail()}"

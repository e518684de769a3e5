"""The client against a real quire-store."""

import socket
import subprocess
import threading

import grpc
import numpy as np
import pytest

import quire
from conftest import random_kv, relative_error, some_tokens, started
from quire import Layout, Store, StoreError


@pytest.fixture
def store(address, layout):
    with Store(address, layout) as opened:
        yield opened


def test_what_was_put_comes_back(store, layout):
    tokens, kv = some_tokens(300), random_kv(layout, 300)
    assert store.lookup(tokens).tokens == 0
    assert store.put(tokens, kv, codec="raw") == quire.PutResult(4, 0, store.put(tokens[:0], kv).bytes + sum(b.bytes for b in store.lookup(tokens).blocks))
    assert store.put(tokens, kv, codec="raw").already == 4
    prefix = store.lookup(tokens + [1] * 100)
    assert prefix.tokens == 256 and len(prefix.blocks) == 5
    assert prefix.blocks[3].state == "hit" and prefix.blocks[3].codec == "raw" and prefix.blocks[4].state == "miss"
    back = store.get(tokens)
    assert back.tokens == 256
    for pair, expected in zip(back.layers, kv, strict=True):
        for values, original in zip(pair, expected, strict=True):
            assert values.dtype == np.float32 and np.array_equal(values, original[:, :256])


def test_codes_are_as_near_as_their_bits(store, layout):
    tokens, kv = some_tokens(256), random_kv(layout, 256)
    store.put(tokens, kv, codec="tq:k4v4")
    errors = {bits: max(relative_error(v[:, 4:], e[:, 4:256]) for pair, expected in zip(store.get(tokens, max_bits=bits).layers, kv)
                        for v, e in zip(pair, expected)) for bits in (0, 4, 3, 2)}
    assert errors[0] == errors[4] < 0.012 < errors[3] < 0.045 < errors[2] < 0.16
    within = store.get(tokens, max_relative_error=0.06)
    assert relative_error(within.layers[0][0], kv[0][0][:, :256]) == pytest.approx(errors[3], rel=0.2)
    sinks = store.get(tokens).layers[1][1][:, :4]
    assert np.array_equal(sinks, kv[1][1][:, :4])  # the first tokens of a sequence are kept as they are
    for dtype in ("f16", "bf16"):
        assert relative_error(store.get(tokens, dtype=dtype).layers[0][0].astype(np.float32), kv[0][0][:, :256]) < 0.012


def test_layers_come_one_by_one_and_early_end_is_fine(store, layout):
    tokens, kv = some_tokens(128), random_kv(layout, 128)
    store.put(tokens, kv, codec="raw")
    with store.fetch(tokens) as stream:
        assert stream.tokens == 128 and stream.miss is None
        first = next(iter(stream))
        assert first.layer == 0 and np.array_equal(first.key, kv[0][0])
    assert [layer.layer for layer in store.fetch(tokens)] == [0, 1, 2]
    assert list(store.fetch(some_tokens(128, seed=9))) == []
    assert store.get(some_tokens(128, seed=9)).layers == []


def test_blocks_larger_than_a_chunk(address, request):
    layout = Layout.uniform(request.node.nodeid, layers=2, kv_heads=16, head_dim=256, dtype="f32")  # 1 MiB a stream and layer
    tokens, kv = some_tokens(128), random_kv(layout, 128)
    with Store(address, layout) as store:
        store.put(tokens, kv, codec="raw")
        back = store.get(tokens)
        assert all(np.array_equal(v, e) for pair, expected in zip(back.layers, kv) for v, e in zip(pair, expected))


def test_a_later_block_may_be_put_alone(store, layout):
    tokens, kv = some_tokens(256), random_kv(layout, 256)
    rest = [tuple(x[:, 128:] for x in pair) for pair in kv]
    with pytest.raises(StoreError) as caught:
        store.put(tokens, rest, codec="raw", first_block=2)
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert store.put(tokens[:128], kv, codec="raw").stored == 2
    assert store.put(tokens, rest, codec="raw", first_block=2).stored == 2
    assert np.array_equal(store.get(tokens).layers[2][1], kv[2][1])


def test_latents_and_parts(address, request):
    latent = Layout(quire.Layout.uniform(request.node.nodeid, 1, 1, 64).model_digest, (quire.Layer((quire.Stream("latent", 1, 576),)),) * 2, "f32")
    tokens = some_tokens(64)
    with Store(address, latent) as store:
        kv = random_kv(latent, 64)
        store.put(tokens, kv, codec="raw")
        assert np.array_equal(store.get(tokens).layers[1][0], kv[1][0]) and store.get(tokens).layers[1][1] is None
    layout = Layout.uniform(request.node.nodeid, 2, 4, 64, dtype="f32")
    kv = random_kv(layout, 64)
    half = quire.Part(0, 2, 2, 4)
    with Store(address, layout, part=half) as rank, Store(address, layout) as whole:
        rank.put(tokens, [tuple(x[2:] for x in pair) for pair in kv], codec="raw")
        assert rank.lookup(tokens).tokens == 64 and whole.lookup(tokens).tokens == 0
        assert np.array_equal(rank.get(tokens).layers[1][0], kv[1][0][2:])


def test_tenants_and_salts_do_not_meet(address, layout):
    tokens, kv = some_tokens(64), random_kv(layout, 64)
    with Store(address, layout, tenant="a", salt=b"s") as store:
        store.put(tokens, kv)
        assert store.lookup(tokens).tokens == 64
    for other in ({"tenant": "b", "salt": b"s"}, {"tenant": "a"}, {"tenant": "a", "salt": b"s", "extra": b"adapter"}):
        with Store(address, layout, **other) as store:
            assert store.lookup(tokens).tokens == 0


def test_keys_are_pinned_touched_and_deleted(store, layout):
    tokens = some_tokens(192)
    store.put(tokens, random_kv(layout, 192))
    assert store.touch(tokens) == 3 and store.pin(tokens) == 3 and store.prefetch(tokens) == 0
    assert store.delete(tokens) == 0 and store.unpin(tokens) == 3 and store.unpin(tokens) == 0
    assert store.delete(tokens) == 3 and store.lookup(tokens).tokens == 0
    with pytest.raises(ValueError, match="tape"):
        store.prefetch(tokens, "tape")


def test_leases_hold(store, layout):
    tokens = some_tokens(64)
    store.put(tokens, random_kv(layout, 64))
    assert store.lookup(tokens, lease=300).lease_id != 0
    assert store.delete(tokens) == 0 and store.delete(tokens, force=True) == 1


def test_stats(store):
    stats = store.stats()
    assert stats["tiers"][0].tier == "host" and stats["tiers"][0].capacity_bytes == 256 << 20 and stats["version"]


@pytest.mark.parametrize("options, code, message", [
    ({"codec": "tq:k4v"}, grpc.StatusCode.INVALID_ARGUMENT, "k4v"), ({"codec": "zip"}, grpc.StatusCode.INVALID_ARGUMENT, "zip"),
    ({"ttl": 1e9}, grpc.StatusCode.INVALID_ARGUMENT, "ttl")])
def test_what_the_store_refuses_is_raised(store, layout, options, code, message):
    with pytest.raises(StoreError, match=message) as caught:
        store.put(some_tokens(64), random_kv(layout, 64), **options)
    assert caught.value.code is code and caught.value.block is None
    assert store.lookup(some_tokens(64)).tokens == 0


def test_a_block_that_cannot_be_coded_is_named(store, layout):
    tokens, kv = some_tokens(256), random_kv(layout, 256)
    kv[1][0][1, 130, 5] = np.nan
    with pytest.raises(StoreError, match="block 2: .*layer 1") as caught:
        store.put(tokens, kv)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT and caught.value.block == 2
    assert store.lookup(tokens).tokens == 128


def test_what_is_wrong_here_is_raised_as_it_is(store, layout):
    kv = random_kv(layout, 64)
    with pytest.raises(ValueError, match="2 layers: the layout has 3"):
        store.put(some_tokens(64), kv[:2])
    with pytest.raises(TypeError, match="int64"):
        store.put(some_tokens(64), [tuple(x.astype(np.int64) for x in pair) for pair in kv])
    with pytest.raises(ValueError, match="dtype is int8"):
        store.get(some_tokens(64), dtype="int8")
    with pytest.raises(ValueError, match="would cross the network"):
        Store("store.example:50061", layout, token="secret")
    assert store.put(some_tokens(64), kv).stored == 1  # and nothing is left of it


def test_a_store_without_room_says_so(layout):
    with started("--host-bytes", "1MiB") as (_, at), Store(at, layout) as store:
        kv = random_kv(layout, 64 * 40)
        tokens = some_tokens(64 * 40)
        try:
            store.put(tokens, kv, codec="raw")  # 96 KiB a block
        except StoreError as error:
            assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert store.lookup(tokens).tokens < 64 * 40


def test_a_restarted_store_is_told_the_layout_again(layout):
    tokens, kv = some_tokens(64), random_kv(layout, 64)
    with started() as (process, at):
        store = Store(at, layout, tries=20)
        store.put(tokens, kv)
        process.kill()
        with started(listen=at):
            assert store.lookup(tokens).tokens == 0  # UNAVAILABLE is tried again, NOT_FOUND answered with the layout
            assert store.put(tokens, kv).stored == 1
        store.close()


def test_deadlines_and_dead_stores(layout):
    with started() as (process, at):
        pass
    with Store(at, layout, tries=2) as store, pytest.raises(StoreError) as caught:
        store.lookup(some_tokens(64), timeout=5)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE

    # A server that answers nothing.
    listener = socket.create_server(("127.0.0.1", 0))
    with Store(f"127.0.0.1:{listener.getsockname()[1]}", layout) as store:
        for call in (lambda: store.lookup(some_tokens(64), timeout=0.2), lambda: store.put(some_tokens(64), random_kv(layout, 64), timeout=0.2)):
            with pytest.raises(StoreError) as caught:
                call()
            assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    listener.close()


def test_unix_sockets(layout, tmp_path):
    with started(listen=f"unix:{tmp_path}/socket"), Store(f"unix:{tmp_path}/socket", layout, token="any") as store:
        assert store.put(some_tokens(64), random_kv(layout, 64)).stored == 1


def make_certificates(folder):
    """A CA, and certificates of a server on localhost and of a client, signed by it."""
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
            "-days", "2", "-subj", "/CN=test CA")
    for name in ("server", "client"):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
                "-subj", f"/CN={name}")
        (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", f"{name}.pem", "-days", "2",
                "-extfile", "names")


def test_tls(layout, tmp_path):
    make_certificates(tmp_path)
    files = {name: str(tmp_path / name) for name in ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")}
    with started("--tls-cert", files["server.pem"], "--tls-key", files["server.key"], "--tls-client-ca", files["ca.pem"]) as (_, at):
        tls = quire.Tls.from_files(files["ca.pem"], files["client.pem"], files["client.key"])
        with Store(at, layout, tls=tls, token="any") as store:
            assert store.put(some_tokens(64), random_kv(layout, 64)).stored == 1
        for wrong in (None, quire.Tls.from_files(files["ca.pem"])):
            with Store(at, layout, tls=wrong, tries=1, timeout=5) as store, pytest.raises(StoreError) as caught:
                store.lookup(some_tokens(64))
            assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def test_many_threads_share_a_store(store, layout):
    kv = random_kv(layout, 128)
    failures = []

    def work(seed):
        tokens = some_tokens(128, seed % 3)  # some of them the same
        store.put(tokens, kv, codec="raw")
        back = store.get(tokens)
        if back.tokens != 128 or not np.array_equal(back.layers[2][1], kv[2][1]):
            failures.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures

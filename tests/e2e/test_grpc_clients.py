"""A plain Python grpcio client drives every working call from the .proto alone."""

import array
import hashlib
import queue
import random
import struct

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from stubs import codec, common, inference, kv_store

LAYERS, HEADS, DIM, TOKENS = 2, 2, 64, 64
CHUNK = 1 << 20
SERVICES = {"quire.v1.KvStore", "quire.v1.Codec", "quire.v1.StoreAdmin", "quire.v1.Inference"}


# ---- the store

def a_layout(seed):
    streams = [common.StreamLayout(kind=kind, heads=HEADS, dim=DIM) for kind in (common.KEY, common.VALUE)]
    return common.Layout(model_digest=hashlib.sha256(b"e2e %d" % seed).digest(), dtype=common.BF16, rope_state="e2e",
                         rotation_seed=seed, layers=[common.LayerLayout(streams=streams)] * LAYERS)


def raw_block(seed):
    """bf16 bytes: for each layer K then V, each [token][head][d], of normal numbers."""
    source = random.Random(seed)
    count = LAYERS * 2 * TOKENS * HEADS * DIM
    return b"".join(struct.pack("<f", source.gauss(0, 1))[2:] for _ in range(count))


def bf16(data):
    out = array.array("f")
    out.frombytes(b"".join(b"\0\0" + data[i:i + 2] for i in range(0, len(data), 2)))
    return out


def relative_error(truth, guess):
    """‖x−x̂‖²/‖x‖²"""
    a, b = bf16(truth), bf16(guess)
    assert len(a) == len(b)
    return sum((x - y) ** 2 for x, y in zip(a, b)) / sum(x * x for x in a)


def chain(fingerprint, salt, blocks):
    """Block keys as DESIGN and core/block/README.md define them: [root, key 0, key 1, …]."""
    root = hashlib.sha256(b"quire.root.v1" + fingerprint + struct.pack("<I", len(salt)) + salt + struct.pack("<I", 0)).digest()
    keys = [root]
    for block in range(blocks):
        tokens = struct.pack("<64I", *range(block * TOKENS, (block + 1) * TOKENS))
        keys.append(hashlib.sha256(b"quire.block.v1" + keys[-1] + tokens).digest())
    return keys


def announces(keys, sizes):
    return [kv_store.BlockAnnounce(key=key, parent=parent, index=index, bytes=size)
            for index, (parent, key, size) in enumerate(zip(keys, keys[1:], sizes))]


def put(stub, announce, blocks):
    """Speaks the two phases of Put: announces, waits for what is wanted, sends that. Returns (wanted, results)."""
    to_send = queue.Queue()
    to_send.put(kv_store.PutRequest(announce=announce))
    responses = stub.Put(iter(to_send.get, None), timeout=30)
    wanted = list(next(responses).wanted.blocks)
    for block in wanted:
        for offset in range(0, len(blocks[block]), CHUNK):
            data = kv_store.BlockData(block=block, offset=offset, data=blocks[block][offset:offset + CHUNK])
            to_send.put(kv_store.PutRequest(data=data))
    to_send.put(None)
    return wanted, [response.result for response in responses]


def get(stub, request):
    data, missed = {}, {}
    for response in stub.Get(request, timeout=30):
        if response.WhichOneof("message") == "miss":
            missed[response.miss.block] = response.miss.code
        else:
            part = response.data
            assert part.offset == len(data.get(part.block, b"")) and len(part.data) <= CHUNK
            data[part.block] = data.get(part.block, b"") + part.data
    return data, missed


def test_store_put_lookup_get_delete(quire):
    fingerprint = quire.kv_store.RegisterLayout(kv_store.RegisterLayoutRequest(layout=a_layout(1)), timeout=10).fingerprint
    assert len(fingerprint) == 32
    namespace = kv_store.Namespace(fingerprint=fingerprint)
    keys, raw = chain(fingerprint, b"salt", 3), [raw_block(seed) for seed in range(3)]
    lookup = kv_store.LookupRequest(namespace=namespace, keys=keys[1:])
    assert quire.kv_store.Lookup(lookup, timeout=10).prefix_blocks == 0

    announced = announces(keys, map(len, raw))
    wanted, results = put(quire.kv_store, kv_store.PutAnnounce(namespace=namespace, blocks=announced, encode="tq:k4v4"), raw)
    assert wanted == [0, 1, 2] and [(result.block, result.code) for result in results] == [(0, 0), (1, 0), (2, 0)]
    assert all(0 < result.stored_bytes < len(raw[0]) / 2.5 for result in results)
    assert put(quire.kv_store, kv_store.PutAnnounce(namespace=namespace, blocks=announced, encode="tq:k4v4"), raw) == ([], [])

    found = quire.kv_store.Lookup(lookup, timeout=10)
    assert found.prefix_blocks == 3
    assert all(block.state == kv_store.BlockState.HIT and block.tier == common.HOST and block.codec == "tq:k4v4" for block in found.blocks)

    objects, missed = get(quire.kv_store, kv_store.GetRequest(namespace=namespace, blocks=announced))
    assert sorted(objects) == [0, 1, 2] and not missed
    assert all(data[:4] == b"QKV1" for data in objects.values())
    assert [len(objects[i]) for i in range(3)] == [block.bytes for block in found.blocks]

    # The same objects, put under another tenant as they are, are the same blocks.
    other = kv_store.Namespace(fingerprint=fingerprint, tenant="other")
    as_objects = announces(keys, [len(objects[i]) for i in range(3)])
    assert quire.kv_store.Lookup(kv_store.LookupRequest(namespace=other, keys=keys[1:]), timeout=10).prefix_blocks == 0
    wanted, results = put(quire.kv_store, kv_store.PutAnnounce(namespace=other, blocks=as_objects), objects)
    assert wanted == [0, 1, 2] and all(result.code == 0 for result in results)
    assert get(quire.kv_store, kv_store.GetRequest(namespace=other, blocks=announced))[0] == objects

    assert quire.kv_store.Delete(kv_store.DeleteRequest(namespace=namespace, keys=keys[3:]), timeout=10).deleted == 1
    assert quire.kv_store.Lookup(lookup, timeout=10).prefix_blocks == 2
    objects, missed = get(quire.kv_store, kv_store.GetRequest(namespace=namespace, blocks=announced))
    assert sorted(objects) == [0, 1] and missed == {2: grpc.StatusCode.NOT_FOUND.value[0]}


def test_store_refuses_a_forged_object(quire):
    fingerprint = quire.kv_store.RegisterLayout(kv_store.RegisterLayoutRequest(layout=a_layout(2)), timeout=10).fingerprint
    namespace = kv_store.Namespace(fingerprint=fingerprint)
    keys, raw = chain(fingerprint, b"", 1), [raw_block(9)]
    announced = announces(keys, map(len, raw))
    put(quire.kv_store, kv_store.PutAnnounce(namespace=namespace, blocks=announced, encode="tq:k4v4"), raw)
    (data,) = get(quire.kv_store, kv_store.GetRequest(namespace=namespace, blocks=announced))[0].values()
    quire.kv_store.Delete(kv_store.DeleteRequest(namespace=namespace, keys=keys[1:]), timeout=10)
    forged = data[:-1] + bytes([data[-1] ^ 1])
    announce = kv_store.PutAnnounce(namespace=namespace, blocks=announces(keys, [len(forged)]))
    _, (result,) = put(quire.kv_store, announce, [forged])
    assert result.code == grpc.StatusCode.DATA_LOSS.value[0], result
    assert quire.kv_store.Lookup(kv_store.LookupRequest(namespace=namespace, keys=keys[1:]), timeout=10).prefix_blocks == 0


def test_store_refuses_an_unknown_layout(quire):
    namespace = kv_store.Namespace(fingerprint=b"\1" * 32)
    with pytest.raises(grpc.RpcError) as error:
        quire.kv_store.Lookup(kv_store.LookupRequest(namespace=namespace, keys=[b"\2" * 32]), timeout=10)
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_stats(quire):
    stats = quire.store_stats()
    assert [tier.tier for tier in stats.tiers] == [common.HOST] and stats.tiers[0].capacity_bytes >= 1 << 20
    assert stats.version and stats.layouts >= 1


def test_codec_encode_decode_describe(quire):
    raw = [raw_block(21), raw_block(22)]
    for spec, goal in (("raw", 0), ("tq:k8v8", 1e-3), ("tq:k4v4", 0.012), ("tq:k3v2", 0.09)):
        start = codec.EncodeRequest(start=codec.EncodeStart(layout=a_layout(3), codec=spec, dtype=common.BF16, first_block=5))
        objects = collect(quire.codec.Encode(iter([start] + [
            codec.EncodeRequest(data=codec.CodecData(block=i, data=data, last=True)) for i, data in enumerate(raw)]), timeout=30))
        start = codec.DecodeRequest(start=codec.DecodeStart(layout=a_layout(3), dtype=common.BF16))
        decoded = collect(quire.codec.Decode(iter([start] + [
            codec.DecodeRequest(data=codec.CodecData(block=i, data=data, last=True)) for i, data in objects.items()]), timeout=30))
        assert sorted(objects) == sorted(decoded) == [0, 1]
        for i in range(2):
            error = relative_error(raw[i], decoded[i])
            assert error <= goal and (error > goal / 3 or goal < 0.01), (spec, error)
        described = quire.codec.Describe(codec.DescribeRequest(layout=a_layout(3), codec=spec), timeout=10)
        assert described.raw_bytes == len(raw[0]) and described.object_bytes[-1] == len(objects[0])
        assert len(described.k_bits) == len(described.object_bytes) == len(described.v_bits)


def collect(stream):
    blocks, ended = {}, set()
    for part in stream:
        assert part.block not in ended
        blocks[part.block] = blocks.get(part.block, b"") + part.data
        if part.last:
            ended.add(part.block)
    assert ended == set(blocks)
    return blocks


def test_codec_names_what_is_not_a_number(quire):
    data = bytearray(raw_block(23))
    token, head = 7, 1
    at = 2 * ((1 * 2 * TOKENS + token) * HEADS + head) * DIM  # layer 1, K
    data[at:at + 2] = b"\xc0\x7f"  # bf16 NaN
    requests = [codec.EncodeRequest(start=codec.EncodeStart(layout=a_layout(3), codec="tq:k4v4", dtype=common.BF16)),
                codec.EncodeRequest(data=codec.CodecData(block=0, data=bytes(data), last=True))]
    with pytest.raises(grpc.RpcError) as error:
        list(quire.codec.Encode(iter(requests), timeout=30))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert all(word in error.value.details() for word in ("layer 1", "head 1", "token 7")), error.value.details()


# ---- the worker

def generate(quire, **fields):
    request = inference.GenerateRequest(**{"text": "The capital of France is", "max_tokens": 8,
                                           "sampling": inference.Sampling(temperature=0)} | fields)
    return list(quire.inference.Generate(request, timeout=120))


def test_describe_model(quire):
    model = quire.inference.DescribeModel(inference.DescribeModelRequest(), timeout=10)
    assert model.name == quire.model and model.architecture == "llama" and model.has_chat_template
    assert len(model.model_digest) == len(model.fingerprint) == 32 and model.vocabulary == 49152
    assert 130e6 < model.parameters < 140e6 and model.context_tokens >= 2048 and model.kv_codec.startswith("tq:") and model.eos_tokens


def test_generate(quire):
    messages = generate(quire)
    assert messages[0].request_id and "Paris" in "".join(message.text for message in messages)
    last = messages[-1]
    assert last.finish in (inference.STOP, inference.LENGTH) and all(not message.finish for message in messages[:-1])
    assert last.usage.prompt_tokens == 5 and last.usage.completion_tokens == sum(len(m.tokens) for m in messages) <= 8
    assert last.usage.prefill_us > 0


def test_generate_from_tokens_text_and_chat_agree(quire):
    tokens = quire.inference.Tokenize(inference.TokenizeRequest(text="The capital of France is", parse_special=True), timeout=10).tokens
    by_tokens = generate(quire, text=None, tokens=inference.Tokens(ids=tokens))
    assert "".join(m.text for m in by_tokens) == "".join(m.text for m in generate(quire))
    chat = inference.RenderChatRequest(messages=[inference.ChatMessage(role="user", content="Hi")])
    rendered = quire.inference.RenderChat(chat, timeout=10)
    assert rendered.text.endswith("<|im_start|>assistant\n") and "Hi" in rendered.text
    by_chat, by_text = generate(quire, text=None, chat=chat), generate(quire, text=rendered.text)
    assert "".join(m.text for m in by_chat) == "".join(m.text for m in by_text)
    assert by_chat[-1].usage.prompt_tokens == len(rendered.tokens)


def test_tokenize_and_back(quire):
    for text in ("Hello, world!", "naïve café 12345", "漢字 🙂\n\ttabs", ""):
        tokens = quire.inference.Tokenize(inference.TokenizeRequest(text=text), timeout=10).tokens
        assert quire.inference.Detokenize(inference.DetokenizeRequest(tokens=tokens), timeout=10).text.decode() == text
    special = inference.TokenizeRequest(text="<|im_start|>", parse_special=True)
    assert len(quire.inference.Tokenize(special, timeout=10).tokens) == 1
    plain = inference.TokenizeRequest(text="<|im_start|>")
    assert len(quire.inference.Tokenize(plain, timeout=10).tokens) > 1


def test_wrong_requests_are_named(quire):
    for fields, word in (({"sampling": inference.Sampling(temperature=-1)}, "temperature"), ({"text": "", }, "prompt"),
                         ({"text": None, "tokens": inference.Tokens(ids=[1 << 30])}, "token"), ({"stop": [""]}, "stop")):
        with pytest.raises(grpc.RpcError) as error:
            generate(quire, **fields)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT and word in error.value.details(), error.value.details()


def test_abort_ends_a_generation(quire):
    request = inference.GenerateRequest(text="Once upon a time", max_tokens=4000, ignore_eos=True, request_id="to be aborted")
    stream = quire.inference.Generate(request, timeout=120)
    next(stream)
    assert quire.inference.Abort(inference.AbortRequest(request_id="to be aborted"), timeout=10).found
    last = list(stream)[-1]
    assert last.finish == inference.ABORTED and last.usage.completion_tokens < 4000
    assert not quire.inference.Abort(inference.AbortRequest(request_id="to be aborted"), timeout=10).found


# ---- both

def test_what_comes_later_says_so(quire):
    calls = [
        lambda: quire.inference.Score(inference.ScoreRequest(), timeout=10),
        lambda: quire.inference.Embed(inference.EmbedRequest(), timeout=10),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as error:
            call()
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_health(quire):
    for channel in (quire.worker_channel, quire.store_channel):
        stub = health_pb2_grpc.HealthStub(channel)
        reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_describes_everything(quire):
    found = set()
    for channel in (quire.worker_channel, quire.store_channel):
        database = ProtoReflectionDescriptorDatabase(channel)
        found |= set(database.get_services()) & SERVICES
        pool = DescriptorPool(database)
        for service in set(database.get_services()) & SERVICES:
            assert pool.FindServiceByName(service).methods
    assert found == SERVICES

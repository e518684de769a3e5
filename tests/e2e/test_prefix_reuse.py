"""What Quire is for: a prefix that was computed once is restored from its codes, and whatever happens to them, the answer comes."""

import time

import grpc
import pytest

import stubs
from processes import Process, binary, wait_until
from system import ADDRESS, all_in_one, three_services
from texts import story

BLOCK = 64
PREFIX_TOKENS = 1408  # 22 blocks: what the second of two prompts of about 1,500 tokens must find


def ask(quire, text, question, **options):
    """Streams an answer; returns (text, usage, seconds to the first token)."""
    start, first, parts, usage = time.monotonic(), None, [], None
    for chunk in quire.chat(f"{text}\n\n{question}", stream=True, stream_options={"include_usage": True}, **options):
        if chunk.choices and chunk.choices[0].delta.content:
            first = first or time.monotonic() - start
            parts.append(chunk.choices[0].delta.content)
        usage = chunk.usage or usage
    return "".join(parts), usage, first


def wait_for_offload(quire, blocks):
    wait_until(lambda: quire.store_stats().blocks_stored >= blocks, f"{blocks} blocks offloaded to the store")


def cached(usage):
    return usage.prompt_tokens_details.cached_tokens


def test_second_question_is_restored_and_fast(tmp_path):
    with all_in_one(tmp_path) as quire:
        ask(quire, "Hello.", "Are you there?")  # first use of everything, so that both measurements find it warm
        _, usage, cold = ask(quire, story(), "Who wrote the date on the wall?")
        assert 1440 <= usage.prompt_tokens <= 1600 and cached(usage) == 0
        wait_for_offload(quire, PREFIX_TOKENS // BLOCK)
        _, usage, warm = ask(quire, story(), "What did the librarian hide behind the atlas?")
        print(f"\n{usage.prompt_tokens} tokens, {cached(usage)} cached; first token after {cold:.3f} s computed, {warm:.3f} s "
              f"restored: {cold / warm:.1f} times faster")
        assert cached(usage) >= PREFIX_TOKENS
        assert warm <= cold / 3
        stats = quire.store_stats()
        assert stats.hit_tokens >= PREFIX_TOKENS
        ratio = stats.raw_bytes_stored / sum(tier.used_bytes for tier in stats.tiers)
        print(f"stored: {stats.blocks_stored} blocks, {ratio:.2f} times smaller than bf16")
        assert ratio > 3


def test_raw_codec_gives_the_same_text(tmp_path):
    with all_in_one(tmp_path, "--kv-codec", "raw") as quire:
        computed, usage, _ = ask(quire, story(), "Tell me more.", max_tokens=32)
        assert cached(usage) == 0 and usage.completion_tokens == 32
        wait_for_offload(quire, PREFIX_TOKENS // BLOCK)
        restored, usage, _ = ask(quire, story(), "Tell me more.", max_tokens=32)
        assert cached(usage) >= PREFIX_TOKENS
        assert restored == computed


def test_tenants_salt_separates(tmp_path):
    with all_in_one(tmp_path) as quire:
        text = story(sentences=20)
        ask(quire, text, "Why?", extra_body={"cache_salt": "a"}, max_tokens=1)
        wait_for_offload(quire, 4)
        assert cached(ask(quire, text, "Why?", extra_body={"cache_salt": "b"}, max_tokens=1)[1]) == 0
        assert cached(ask(quire, text, "Why?", extra_body={"cache_salt": "a"}, max_tokens=1)[1]) >= 4 * BLOCK


def test_store_killed_between_two_requests(tmp_path):
    with three_services(tmp_path) as quire:
        text = story(sentences=40)
        first, usage, _ = ask(quire, text, "Who was it?")
        wait_for_offload(quire, usage.prompt_tokens // BLOCK - 1)
        _, usage, _ = ask(quire, text, "Who was it?")
        assert cached(usage) >= 8 * BLOCK, "the store must have been in use before it is killed"
        quire.processes["store"].kill()
        again, usage, _ = ask(quire, text, "Who was it?")
        assert cached(usage) == 0 and again == first
        assert not quire.load().store_connected


def test_one_flipped_byte_is_found_and_recomputed(tmp_path):
    with three_services(tmp_path, store_flags=["--enable-faults"]) as quire:
        text = story(sentences=40)
        first, usage, _ = ask(quire, text, "Who was it?")
        wait_for_offload(quire, usage.prompt_tokens // BLOCK - 1)
        quire.admin.InjectFault(stubs.store_admin.InjectFaultRequest(point="corrupt_byte", count=1), timeout=10)
        again, usage, _ = ask(quire, text, "Who was it?")
        assert again == first
        assert cached(usage) < 8 * BLOCK, "nothing from the corrupt block on may be used"
        assert quire.store_stats().checksum_failures == 1


@pytest.mark.parametrize("flags", [["--enable-faults"], []])
def test_faults_only_where_asked_for(tmp_path, flags):
    store = Process([binary("quire-store"), "--listen", "127.0.0.1:0", *flags])
    try:
        channel = grpc.insecure_channel(store.wait_for("ready.* " + ADDRESS)[1])
        admin = stubs.store_admin_grpc.StoreAdminStub(channel)
        request = stubs.store_admin.InjectFaultRequest(point="corrupt_byte", count=0)
        if flags:
            admin.InjectFault(request, timeout=10)
        else:
            with pytest.raises(grpc.RpcError):
                admin.InjectFault(request, timeout=10)
        assert store.terminate() == 0
    finally:
        store.kill()


def test_a_restart_answers_from_the_cache_on_its_disk(tmp_path):
    with all_in_one(tmp_path, "--disk-bytes", "256MiB") as quire:
        first, usage, _ = ask(quire, story(), "Who wrote the date on the wall?")
        assert cached(usage) == 0
    with all_in_one(tmp_path, "--disk-bytes", "256MiB") as quire:
        again, usage, _ = ask(quire, story(), "Who wrote the date on the wall?")
        assert cached(usage) >= PREFIX_TOKENS
        assert again and first

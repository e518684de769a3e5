"""A client that goes away ends its generation."""

import re

import openai
import pytest

import stubs
from processes import wait_until

TOKENS = 1800  # far more than can be made before the end of a generation is seen: the model makes some tens a second
TEXT = "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,"


def generated(quire):
    return sum(value for name, value in quire.metrics().items() if re.match(r"quire_\w*(generated|completion)\w*tokens\w*total", name))


def idle(quire):
    load = quire.load()
    return load.running == 0 and load.waiting == 0


def test_http_client_that_disconnects(quire):
    before = generated(quire)
    stream = quire.client.completions.create(model=quire.model, prompt=TEXT, max_tokens=TOKENS, stream=True, temperature=0)
    for _ in range(3):
        next(iter(stream))
    assert quire.load().running == 1
    stream.close()
    wait_until(lambda: idle(quire), "the generation ended", seconds=5)
    assert generated(quire) - before < TOKENS / 4


def test_http_client_that_disconnects_while_it_waits_for_a_whole_answer(quire):
    impatient = quire.client.with_options(timeout=1.0)
    with pytest.raises(openai.APITimeoutError):
        impatient.completions.create(model=quire.model, prompt=TEXT, max_tokens=TOKENS, temperature=0)
    wait_until(lambda: idle(quire), "the generation ended", seconds=5)


def test_grpc_client_that_cancels(quire):
    request = stubs.inference.GenerateRequest(text=TEXT, max_tokens=TOKENS, ignore_eos=True)
    stream = quire.inference.Generate(request, timeout=300)
    next(stream)
    stream.cancel()
    wait_until(lambda: idle(quire), "the generation ended", seconds=5)

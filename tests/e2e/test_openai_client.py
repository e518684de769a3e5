"""The real openai client against `quire serve`."""

import concurrent.futures
import http.client
import json
import urllib.parse

import openai
import pytest

from texts import story

QUESTION = "What is the capital of France?"


def test_models(quire):
    (model,) = quire.client.models.list().data
    assert model.object == "model" and "smollm2" in model.id.lower() and model.created > 0 and model.owned_by
    assert quire.client.models.retrieve(model.id).id == model.id
    with pytest.raises(openai.NotFoundError) as error:
        quire.client.models.retrieve("gpt-9")
    assert error.value.code == "model_not_found"


def test_chat(quire):
    answer = quire.chat(QUESTION, max_tokens=24)
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-") and answer.model == quire.model
    (choice,) = answer.choices
    assert choice.index == 0 and choice.message.role == "assistant" and choice.finish_reason in ("stop", "length")
    assert "Paris" in choice.message.content
    usage = answer.usage
    assert 0 < usage.completion_tokens <= 24 and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens == 0  # shorter than a block


def test_every_turn_is_part_of_the_prompt(quire):
    turns = [{"role": "system", "content": "You are terse."}, {"role": "user", "content": "My name is Ada."},
             {"role": "assistant", "content": "Hello Ada."}, {"role": "user", "content": "What is my name?"}]
    counts = [quire.client.chat.completions.create(model=quire.model, messages=turns[:n], max_tokens=1).usage.prompt_tokens
              for n in (2, 4)]
    assert counts[1] > counts[0] + 15
    parts = [{"role": "user", "content": [{"type": "text", "text": "What is the capital"}, {"type": "text", "text": "of France?"}]}]
    assert quire.client.chat.completions.create(model=quire.model, messages=parts, max_tokens=1).usage.prompt_tokens > 10


def test_completion(quire):
    answer = quire.client.completions.create(model=quire.model, prompt="The capital of France is", max_tokens=8, temperature=0)
    assert answer.object == "text_completion" and answer.id.startswith("cmpl-")
    assert "Paris" in answer.choices[0].text and answer.usage.completion_tokens <= 8


def test_chat_stream(quire):
    whole = quire.chat(QUESTION, max_tokens=24)
    chunks = list(quire.chat(QUESTION, max_tokens=24, stream=True, stream_options={"include_usage": True}))
    assert all(chunk.object == "chat.completion.chunk" and chunk.id == chunks[0].id for chunk in chunks)
    first, *contents, finish, usage = chunks
    assert first.choices[0].delta.role == "assistant" and not first.choices[0].delta.content
    assert len(contents) > 5, "the text must come as it is made, not at once"
    assert all(chunk.choices[0].delta.role is None and chunk.choices[0].finish_reason is None for chunk in contents)
    assert "".join(chunk.choices[0].delta.content for chunk in contents) == whole.choices[0].message.content
    assert finish.choices[0].finish_reason == whole.choices[0].finish_reason and not finish.choices[0].delta.content
    assert usage.choices == [] and usage.usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_chat_stream_without_usage(quire):
    chunks = list(quire.chat(QUESTION, max_tokens=4, stream=True))
    assert all(len(chunk.choices) == 1 and chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"


def test_completion_stream(quire):
    options = dict(model=quire.model, prompt="One, two, three,", max_tokens=12, temperature=0)
    whole = quire.client.completions.create(**options)
    chunks = list(quire.client.completions.create(**options, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "length"


def test_the_bytes_of_a_stream(quire):
    body = {"model": quire.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, "stream": True}
    status, headers, text = post(quire, "/v1/chat/completions", json.dumps(body))
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    events = text.split("\n\n")
    assert events[-1] == "" and events[-2] == "data: [DONE]"
    assert all(event.startswith("data: {") for event in events[:-2])


def test_max_tokens_and_stop(quire):
    short = quire.chat(QUESTION, max_tokens=3)
    assert short.usage.completion_tokens == 3 and short.choices[0].finish_reason == "length"
    counting = dict(model=quire.model, prompt="1, 2, 3, 4, 5, 6,", max_tokens=32, temperature=0)
    assert "9" in quire.client.completions.create(**counting).choices[0].text
    stopped = quire.client.completions.create(**counting, stop=["9"]).choices[0]
    assert stopped.finish_reason == "stop" and "9" not in stopped.text and "8" in stopped.text


def test_seed_repeats_a_sampled_answer(quire):
    same = [quire.chat("Tell me a story.", temperature=1.0, seed=7, max_tokens=16).choices[0].message.content for _ in range(2)]
    others = {quire.chat("Tell me a story.", temperature=1.0, seed=seed, max_tokens=16).choices[0].message.content
              for seed in range(8, 12)}
    assert same[0] == same[1] and len(others) > 1


def test_several_at_a_time_do_not_disturb_each_other(quire):
    questions = [f"What is {n} plus {n}?" for n in range(1, 5)]
    alone = [quire.chat(question, max_tokens=12).choices[0].message.content for question in questions]
    with concurrent.futures.ThreadPoolExecutor(len(questions)) as pool:
        together = list(pool.map(lambda question: quire.chat(question, max_tokens=12).choices[0].message.content, questions))
    assert alone == together


# What a client may get wrong: what is sent, the status, and the field that the answer names.
USER = [{"role": "user", "content": "Hi"}]
WRONG = {
    "messages missing": ({}, "messages"),
    "messages empty": ({"messages": []}, "messages"),
    "messages a string": ({"messages": "Hi"}, "messages"),
    "content a number": ({"messages": [{"role": "user", "content": 5}]}, "messages"),
    "role missing": ({"messages": [{"content": "Hi"}]}, "messages"),
    "temperature a string": ({"messages": USER, "temperature": "hot"}, "temperature"),
    "temperature below 0": ({"messages": USER, "temperature": -1}, "temperature"),
    "top_p above 1": ({"messages": USER, "top_p": 1.5}, "top_p"),
    "max_tokens 0": ({"messages": USER, "max_tokens": 0}, "max_tokens"),
    "max_tokens a fraction": ({"messages": USER, "max_tokens": 1.5}, "max_tokens"),
    "n 2": ({"messages": USER, "n": 2}, "n"),
    "stop of five": ({"messages": USER, "stop": ["a", "b", "c", "d", 5]}, "stop"),
    "stream a string": ({"messages": USER, "stream": "yes"}, "stream"),
    "presence_penalty 3": ({"messages": USER, "presence_penalty": 3}, "presence_penalty"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_fields(quire, case):
    fields, name = WRONG[case]
    status, _, text = post(quire, "/v1/chat/completions", json.dumps({"model": quire.model, **fields}))
    error = json.loads(text)["error"]
    assert status == 400, text
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    assert error["param"].startswith(name) and name in error["message"], text


def test_unknown_model(quire):
    with pytest.raises(openai.NotFoundError) as error:
        quire.client.chat.completions.create(model="gpt-9", messages=USER)
    assert error.value.code == "model_not_found" and "gpt-9" in error.value.message


def test_too_long_a_prompt(quire):
    with pytest.raises(openai.BadRequestError) as error:
        quire.chat(story(sentences=1200))
    assert error.value.code == "context_length_exceeded" and error.value.param == "messages", error.value


def test_bad_json(quire):
    for body in ("", "{", "[1, 2", '{"model": \u0001}', '"text"', "\xff\xfe"):
        status, _, text = post(quire, "/v1/chat/completions", body)
        assert status == 400 and json.loads(text)["error"]["type"] == "invalid_request_error", (body, text)


def test_body_over_8_mib(quire):
    body = json.dumps({"model": quire.model, "messages": [{"role": "user", "content": "a" * (8 << 20)}]})
    status, _, text = post(quire, "/v1/chat/completions", body)
    assert status == 413 and "8" in json.loads(text)["error"]["message"]


def test_unknown_paths_and_methods(quire):
    assert request(quire, "GET", "/v1/nothing")[0] == 404
    assert request(quire, "GET", "/v1/chat/completions")[0] == 405
    assert request(quire, "GET", "/health")[0] == 200


def test_the_server_is_well_after_all_that(quire):
    assert quire.chat(QUESTION).choices[0].message.content
    assert quire.load().running == 0


def request(quire, method, path, body=None):
    """Status, headers (names in lower case) and text, by a client that knows nothing of OpenAI."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(quire.http).netloc, timeout=60)
    data = body.encode("latin-1") if body is not None else None
    connection.request(method, path, data, {"Content-Type": "application/json"} if data is not None else {})
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, {name.lower(): value for name, value in reply.getheaders()}, text


def post(quire, path, body):
    return request(quire, "POST", path, body)

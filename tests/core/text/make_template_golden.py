#!/usr/bin/env python3
"""Golden renderings of chat_template_test.cc, by the real Jinja2 set up as transformers does.

    pip install jinja2==3.1.6
    python3 make_template_golden.py SmolLM2-135M-Instruct.Q4_1.gguf templates/ golden/templates.json

Each case: the template's name ("model" is the GGUF's own), names of a conversation and of a set of variables, add_generation_prompt,
and the text, or the message that the template raised, or null where Jinja itself or Python failed in words of their own.
"""
import json
import sys
from pathlib import Path

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from make_tokenizer_golden import read_metadata

BOS, EOS = "<s>", "</s>"


class Generation(Extension):
    """{% generation %}…{% endgeneration %}: its contents."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_contents"), [], [], body).set_lineno(line)

    @staticmethod
    def _contents(caller):
        return caller()


class Raised(TemplateError):
    pass


def raise_exception(message):
    raise Raised(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


def m(*turns):
    return [{"role": role, "content": content} for role, content in turns]


CONVERSATIONS = {
    "one turn": m(("user", "Hi")),
    "system": m(("system", "Be brief."), ("user", "Hi")),
    "many turns": m(("user", "Who are you?"), ("assistant", "A model."), ("user", "Of what?"), ("assistant", "Language."), ("user", "Thanks")),
    "system and turns": m(("system", "  padded \n"), ("user", " a "), ("assistant", "\tb\n"), ("user", "c\n\n")),
    "unicode": m(("system", "Антворте кратко. 简短"), ("user", "¿Qué es 👩‍👩‍👧‍👦? e\u0301 \u2028 \u00a0 نعم"), ("assistant", "家族"), ("user", "ok")),
    "quotes": m(("user", "\"double\" 'single' `back` \\ {{ x }} {% if %} <b>&amp;</b> <|im_end|>"), ("assistant", "'\"\\n"), ("user", "\r\nnew\r\nlines\n")),
    "empty content": m(("system", ""), ("user", ""), ("assistant", ""), ("user", "")),
    "assistant first": m(("assistant", "Hello"), ("user", "Hi")),
    "two users": m(("user", "a"), ("user", "b")),
    "unknown role": m(("user", "a"), ("narrator", "b")),
    "thoughts": m(("user", "1"), ("assistant", "<think>\nhm\n</think>\n\nold"), ("developer", "d"), ("user", "2"), ("assistant", "<think>\nso\n</think>\n\nnew")),
    "parts": [{"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image"}, {"type": "text", "text": "at it"}]}],
    "named": [{"role": "user", "name": "Zoë", "content": "x"}, {"role": "assistant", "content": None}],
    "tool call": [
        {"role": "user", "content": "Weather in Zürich?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {
            "name": "weather", "arguments": {"city": "Zürich", "days": 3, "deep": {"z": [], "a": {}, "t": True, "n": None, "f": 1e-07, "g": 1e22, "h": 2.50, "i": -0.0}}}}]},
        {"role": "tool", "content": {"temperature": 21.0, "text": "<sunny> & 'warm'\t\u0007\u007f\"\\"}},
        {"role": "tool", "content": "plain"},
        {"role": "assistant", "content": "21 degrees."},
    ],
    "two tool calls": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": {}}}, {"function": {"name": "b", "arguments": {}}}]}],
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "It's \"the\" weather <now> – día", "strict": True, "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "enum": [1, 2, 3]}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]
VARIABLES = {"": {}, "tools": {"tools": TOOLS}, "more": {"enable_thinking": False, "date_string": "1 Jan 2030", "variables_seen": "yes", "custom_tools": TOOLS[:1]}}


def main():
    model, folder, output = sys.argv[1:]
    sources = {"model": read_metadata(model)["tokenizer.chat_template"]}
    sources.update({p.stem: p.read_text() for p in sorted(Path(folder).glob("*.jinja"))})
    env = environment()
    cases = []
    for template, source in sources.items():
        compiled = env.from_string(source)
        labels = {"tools": ["", "tools", "more"], "thinking": ["", "more"]}.get(template, [""])
        for name in CONVERSATIONS:
            for label in labels:
                for prompt in (False, True):
                    cases.append({"template": template, "conversation": name, "variables": label, "prompt": prompt,
                                  **render(compiled, CONVERSATIONS[name], prompt, VARIABLES[label])})
    lines = ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases)
    head = json.dumps({"conversations": CONVERSATIONS, "variables": VARIABLES}, ensure_ascii=False)
    Path(output).write_text(head[:-1] + f',\n"cases": [\n{lines}\n]}}\n')


def render(template, messages, prompt, variables):
    arguments = {"tools": None, "documents": None, "bos_token": BOS, "eos_token": EOS, **variables}
    try:
        return {"text": template.render(messages=messages, add_generation_prompt=prompt, **arguments)}
    except Raised as error:
        return {"raised": str(error)}
    except (TemplateError, TypeError):
        return {"raised": None}


if __name__ == "__main__":
    main()

"""What the person who runs Quire sees: make help, --help, metrics, logs, signals, flags that make no sense."""

import json
import pathlib
import re
import signal
import stat
import subprocess

import pytest

from processes import Process, binary, model_path
from system import all_in_one
from texts import story

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARIES = ("quire", "quire-store", "quire-worker", "quire-gateway", "quirectl", "quire-bench", "quire-eval")
# What must be there before a flag that does not exist is what is complained of.
REQUIRED = {
    "quire-gateway": ("--worker", "127.0.0.1:1"),
    "quirectl": ("--store", "127.0.0.1:1", "stats"),
    "quire-bench": ("codec",),
    "quire-eval": ("--model", __file__, "--text", __file__, "--codec", "raw"),
}


def output(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


def test_make_help_lists_every_target():
    targets = set(re.findall(r"^\.PHONY: (\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    documented = output("make", "-C", ROOT, "--no-print-directory", "help").stdout
    hidden = {"setup"}  # part of every other target
    assert targets - hidden == set(re.findall(r"^  (\S+)", documented, re.MULTILINE))
    assert {"serve", "test", "build", "bench", "lint", "format", "sanitize", "help"} <= targets


@pytest.mark.parametrize("name", BINARIES)
def test_help_and_mistakes(name):
    help_text = output(binary(name), "--help")
    assert help_text.returncode == 0 and "--help" in help_text.stdout
    mistake = output(binary(name), *REQUIRED.get(name, ()), "--no-such-flag")
    assert mistake.returncode != 0 and "--no-such-flag" in mistake.stderr + mistake.stdout


def test_every_make_target_and_binary_in_the_readme_exists():
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?make ([a-z-]+)`?", readme)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    named = set(re.findall(r"build/bin/([a-z-]+)", readme))
    assert named and named <= set(BINARIES)


def test_flags_in_the_readme_exist():
    readme = (ROOT / "README.md").read_text()
    for name, arguments in re.findall(r"build/bin/(\S+) ([^\n`]*)", readme):
        words = arguments.split()
        command = [word for word in words[:1] if not word.startswith("-")]
        known = output(binary(name), *command, "--help").stdout + output(binary(name), "--help").stdout
        for flag in re.findall(r"(--[a-z][a-z-]+)", arguments):
            assert flag in known, f"{name} {arguments}: {flag}"


def test_a_missing_model_is_one_clear_line(tmp_path):
    result = output(binary("quire"), "serve", "--model", tmp_path / "none.gguf", "--listen", "127.0.0.1:0", "--data", tmp_path)
    assert result.returncode not in (0, -signal.SIGABRT, -signal.SIGSEGV)
    assert "none.gguf" in result.stderr.strip().splitlines()[-1]


def test_a_taken_port_is_one_clear_line(quire, tmp_path):
    taken = quire.http.removeprefix("http://")
    result = output(binary("quire"), "serve", "--model", model_path(), "--listen", taken, "--data", tmp_path)
    assert result.returncode > 0 and taken in result.stderr.strip().splitlines()[-1]


def test_the_secret_is_made_once_and_kept_private(tmp_path):
    with all_in_one(tmp_path):
        (secret,) = [path for path in tmp_path.iterdir() if "secret" in path.name]
        first = secret.read_bytes()
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600 and len(first) >= 32
    with all_in_one(tmp_path):
        assert secret.read_bytes() == first


def test_it_prints_progress_a_ready_line_and_a_command_that_works(quire):
    lines = list(quire.processes["quire"].lines)
    assert any("%" in line for line in lines), "loading a model shows progress"
    at = next(i for i, line in enumerate(lines) if "ready" in line)
    command = re.search(r"curl .*", "\n".join(lines[at:]), re.DOTALL)[0].split("\n\n")[0]
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert json.loads(answer.stdout)["choices"][0]["message"]["content"], answer.stderr


def test_logs_are_json_lines_without_prompts(quire):
    secret_word = "xylophonically"
    quire.chat(f"Say {secret_word}.")
    assert not any(secret_word in line for line in quire.processes["quire"].lines)
    for line in quire.processes["quire"].lines:
        if line.startswith("{"):
            json.loads(line)


METRICS = {  # the words of a family's name, as issue 3 lists them
    "requests": r"quire_\w*requests\w*",
    "tokens": r"quire_\w*tokens\w*",
    "time to first token": r"quire_\w*(ttft|first_token)\w*_bucket",
    "inter-token latency": r"quire_\w*(inter_token|itl)\w*_bucket",
    "cached tokens": r"quire_\w*cached\w*tokens\w*",
    "lookup hits": r"quire_\w*hit_tokens\w*",
    "lookup misses": r"quire_\w*miss_tokens\w*",
    "stored bytes": r"quire_\w*stored_bytes\w*",
    "raw bytes": r"quire_\w*raw_bytes\w*",
    "ratio": r"quire_\w*ratio\w*",
    "checksum failures": r"quire_\w*checksum_failures\w*",
}


def test_metrics_are_there_from_the_start_and_count(tmp_path):
    with all_in_one(tmp_path) as quire:
        before = quire.metrics()
        for what, pattern in METRICS.items():
            assert any(re.fullmatch(pattern + r"(\{.*\})?", name) for name in before), f"{what}: {sorted(before)}"
        tokens = sum(value for name, value in before.items() if "tokens" in name)
        assert tokens == 0, "nothing has run yet"
        quire.chat(story(sentences=4))
        assert sum(value for name, value in quire.metrics().items() if "tokens" in name) > 0


def test_a_signal_ends_it_cleanly_even_with_a_request_running(tmp_path):
    with all_in_one(tmp_path) as quire:
        stream = quire.client.completions.create(model=quire.model, prompt="1, 2, 3,", max_tokens=1000, stream=True)
        next(iter(stream))
        assert quire.processes["quire"].terminate() == 0

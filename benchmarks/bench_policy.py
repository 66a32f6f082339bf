"""Three environments by policy gradient, five seeds each, one thread: how far a stated budget goes.

    python benchmarks/bench_policy.py [--environments CartPole-v1] [--seeds 0 1] [--page FILE]

CartPole-v1 without a critic, Acrobot-v1 and Pendulum-v1 with one. Prints one JSON line a seed into
the history; ``--page`` draws the table and the learning curves of what the history holds.
"""

import argparse
import json
import statistics
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from origin import HISTORY, record

from thetaone.records import PolicyRun
from thetaone.studies import ActorCriticSettings, train_actor_critic, train_policy

SECONDS = 600.0  # an environment's time on one core
POINTS = 10  # of a curve


@dataclass(frozen=True)
class Row:
    """An environment, its budget and the mean return that its last 80 episodes should reach."""

    env_steps: int
    target: float
    settings: ActorCriticSettings | None = None


ROWS = {
    "CartPole-v1": Row(300_000, 475.0),
    "Acrobot-v1": Row(200_000, -100.0, ActorCriticSettings(discount=0.99)),
    "Pendulum-v1": Row(160_000, -250.0, ActorCriticSettings(discount=0.95)),
}


def train(environment: str, seed: int) -> PolicyRun:
    row = ROWS[environment]
    if row.settings is None:
        return train_policy(seed=seed, env_steps=row.env_steps)
    return train_actor_critic(
        environment, seed=seed, env_steps=row.env_steps, settings=row.settings
    )


def curve(run: PolicyRun) -> list[tuple[int, float]]:
    """Environment steps and mean return, averaged over tenths of the updates."""
    size = max(1, len(run.updates) // POINTS)
    parts = [run.updates[k : k + size] for k in range(0, len(run.updates), size)]
    return [
        (part[-1].env_steps, round(statistics.fmean(r for u in part for r in u.returns), 1))
        for part in parts[:POINTS]
    ]


def measure(environment: str, seed: int) -> None:
    row, run = ROWS[environment], train(environment, seed)
    case = {
        "environment": environment, "threads": 1, "width": run.width, "lr": run.lr,
        "discount": row.settings.discount if row.settings else 1.0, "seed": seed,
        "budget_steps": row.env_steps,
    }  # fmt: skip
    last = run.last_mean()
    within = run.env_steps <= row.env_steps and run.wall_seconds <= SECONDS
    figures = {
        "env_steps": run.env_steps, "episodes": len(run.returns), "last_80_mean": round(last, 1),
        "target": row.target, "passed": last >= row.target and within, "curve": curve(run),
        "seconds": round(run.wall_seconds, 1), "gymnasium": version("gymnasium"),
    }  # fmt: skip
    record("policy", case, figures)


def page() -> str:
    """The newest line of each environment and seed in the history, as tables."""
    lines = (HISTORY / "policy.jsonl").read_text("utf-8").splitlines()
    newest: dict[tuple[str, int], dict[str, Any]] = {}
    for line in map(json.loads, lines):
        if "environment" in line["case"]:
            newest[line["case"]["environment"], line["case"]["seed"]] = line
    text = [
        "# Policies: mean return within a stated budget\n",
        "Command: `python benchmarks/bench_policy.py --page FILE`, one "
        "thread a run. Environment steps include those of finished environments that wait; the "
        f"target is the mean return of the last 80 training episodes, within {SECONDS:.0f} s.",
    ]
    for environment, row in ROWS.items():
        runs = [newest[key] for key in sorted(newest) if key[0] == environment]
        if not runs:
            continue
        passed = sum(run["figures"]["passed"] for run in runs)
        origin = sorted({f"{r['machine']}, torch {r['torch']}, {r['commit']}" for r in runs})
        text.append(
            f"\n## {environment}: {passed} of {len(runs)} seeds reach {row.target:g}\n\n"
            f"{row.env_steps} steps, width {runs[0]['case']['width']}, Adam "
            f"{runs[0]['case']['lr']:g}, discount {runs[0]['case']['discount']:g}. "
            f"{'; '.join(origin)}.\n\n"
            "| seed | steps | episodes | last 80 | seconds | mean return by tenths of the updates |"
            "\n|---|---|---|---|---|---|"
        )
        for run in runs:
            f = run["figures"]
            text.append(
                f"| {run['case']['seed']} | {f['env_steps']} | {f['episodes']} | "
                f"{f['last_80_mean']:.1f} | {f['seconds']:.1f} | "
                f"{', '.join(f'{mean:.0f}' for _, mean in f['curve'])} |"
            )
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--page", type=Path, help="draw what the history holds into this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for environment in options.environments:
        for seed in options.seeds:
            measure(environment, seed)
    if options.page is not None:
        options.page.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()

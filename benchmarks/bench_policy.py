"""CartPole-v1 by policy gradient: one JSON line a seed, one thread.

Run: ``python benchmarks/bench_policy.py`` (about a minute).
"""

import argparse

import gymnasium
import torch
from origin import record

from thetaone.studies import ENV_STEPS, LR, WIDTH, train_policy

TARGET = 475.0  # reward_threshold of CartPole-v1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=ENV_STEPS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed in options.seeds:
        run = train_policy(seed=seed, env_steps=options.steps)
        case = {
            "threads": 1, "width": WIDTH, "lr": LR, "seed": seed, "budget_steps": options.steps,
        }  # fmt: skip
        figures = {
            "env_steps": run.env_steps, "episodes": len(run.returns),
            "last_80_mean": round(run.last_mean(), 1),
            "passed": run.last_mean() >= TARGET and run.env_steps <= options.steps,
            "seconds": round(run.wall_seconds, 1), "gymnasium": gymnasium.__version__,
        }  # fmt: skip
        record("policy", case, figures)


if __name__ == "__main__":
    main()

"""CartPole-v1 by policy gradient: one JSON line a seed, one thread.

Run: ``python benchmarks/bench_policy.py`` (about a minute).
"""

import argparse
import json
import platform

import gymnasium
import torch
from origin import commit

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
        line = {
            "bench": "policy", "commit": commit(), "torch": torch.__version__,
            "gymnasium": gymnasium.__version__, "python": platform.python_version(),
            "device": "cpu", "threads": 1, "width": WIDTH, "lr": LR, "seed": seed,
            "budget_steps": options.steps, "env_steps": run.env_steps,
            "episodes": len(run.returns), "last_80_mean": round(run.last_mean(), 1),
            "passed": run.last_mean() >= TARGET and run.env_steps <= options.steps,
            "seconds": round(run.wall_seconds, 1),
        }  # fmt: skip
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

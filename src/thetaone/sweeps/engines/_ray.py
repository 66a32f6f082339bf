"""Carries trials to a Ray cluster: one task a trial, one core each."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from thetaone.errors import MissingExtraError
from thetaone.records import EngineDecision, Trial, TrialSpec
from thetaone.sweeps._trials import Work, failed_trial
from thetaone.sweeps.engines._local import Decided, Take
from thetaone.sweeps.engines._makespan import chunks
from thetaone.sweeps.engines._work import train


def run_ray(
    work: Work, specs: Sequence[TrialSpec], *, decided: Decided, take: Take = tuple
) -> Iterator[Trial]:
    """Train every spec on the Ray cluster in reach, or on a local one started for the purpose.

    ``ray.init()`` is left to the caller where the cluster's address or options matter; a cluster
    that this function starts it also stops. Each trial is a Ray task of one core, whose torch
    uses one thread; widest trials start first. thetaone, and the task's module or file, must be
    there on every node. Losses equal those of the local engine's workers.

    Args:
        work: Task and optimizer; sent to the cluster once, by cloudpickle.
        specs: What to train.
        decided: Called once with the decision.
        take: Called with specs before they are sent; those it returns are trained.

    Yields:
        One trial for every spec; what raised or whose node was lost is ``failed``.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "ray") from error
    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, include_dashboard=False)
    try:
        n_cores = int(ray.cluster_resources().get("CPU", 1))
        decided(
            EngineDecision(
                engine="ray", n_processes=min(n_cores, len(specs)),
                reason=f"asked for; the cluster has {n_cores} cores",
            )
        )  # fmt: skip
        yield from _gather(ray, work, specs, n_cores, take)
    finally:
        if ours:
            ray.shutdown()


def _gather(
    ray: Any, work: Work, specs: Sequence[TrialSpec], n_cores: int, take: Take
) -> Iterator[Trial]:
    """Keep twice as many trials in flight as there are cores, so that others can take the rest."""
    shared = ray.put(work)
    remote = ray.remote(num_cpus=1, max_retries=2)(_train_on_node)
    groups = (group for group in map(take, chunks(specs, {})) if group)
    running: dict[Any, Sequence[TrialSpec]] = {}
    while True:
        for group in itertools.islice(groups, 2 * n_cores - len(running)):
            running[remote.remote(shared, group)] = group
        if not running:
            return
        ready, _ = ray.wait(list(running), num_returns=1)
        for reference in ready:
            group = running.pop(reference)
            try:
                yield from ray.get(reference)
            except ray.exceptions.RayError as error:
                reason = f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
                yield from (failed_trial(spec, reason) for spec in group)


def _train_on_node(work: Work, specs: Sequence[TrialSpec]) -> list[Trial]:
    import torch

    torch.set_num_threads(1)
    return list(train(work, specs))

"""Carries trials to a Ray cluster: one task a trial, one core each."""

from collections.abc import Iterator, Sequence
from typing import Any

from thetaone.errors import MissingExtraError
from thetaone.records import EngineDecision, Trial, TrialSpec
from thetaone.sweeps._trials import failed_trial
from thetaone.sweeps.engines._local import Decided
from thetaone.sweeps.engines._makespan import chunks
from thetaone.sweeps.engines._work import Work, train


def run_ray(work: Work, specs: Sequence[TrialSpec], *, decided: Decided) -> Iterator[Trial]:
    """Train every spec on the Ray cluster in reach, or on a local one started for the purpose.

    ``ray.init()`` is left to the caller where the cluster's address or options matter; a cluster
    that this function starts it also stops. Each trial is a Ray task of one core, whose torch
    uses one thread; widest trials start first. thetaone, and the task's module or file, must be
    there on every node. Losses equal those of the local engine's workers.

    Args:
        work: Task and optimizer; sent to the cluster once, by cloudpickle.
        specs: What to train.
        decided: Called once with the decision.

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
        yield from _gather(ray, work, specs)
    finally:
        if ours:
            ray.shutdown()


def _gather(ray: Any, work: Work, specs: Sequence[TrialSpec]) -> Iterator[Trial]:
    shared = ray.put(work)
    remote = ray.remote(num_cpus=1, max_retries=1)(_train_on_node)
    running = {remote.remote(shared, group): group for group in chunks(specs, {})}
    while running:
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
    return train(work, specs)

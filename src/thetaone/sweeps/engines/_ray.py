"""Carries trials to a Ray cluster: one task a trial, one core each, and a share of the GPUs."""

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
    work: Work, specs: Sequence[TrialSpec], *, n_processes: int | None = None, decided: Decided,
    take: Take = tuple,
) -> Iterator[Trial]:  # fmt: skip
    """Train every spec on the Ray cluster in reach, or on a local one started for the purpose.

    A cluster that the caller has joined (``ray.init(...)``) is used; else the one that the
    environment variable ``RAY_ADDRESS`` names; else one is started here, and stopped. Each trial is
    a Ray task of one core, whose torch uses one thread, and where the cluster has GPUs of one GPU,
    or of the share that lets ``n_processes`` trials run at a time; widest trials start first. A
    trial whose worker or node dies is trained again elsewhere, twice at most. thetaone, and the
    task's module or file, must be there on every node. Losses equal those of the local workers.

    Args:
        work: Task and optimizer; sent to the cluster once, by cloudpickle.
        specs: What to train.
        n_processes: Trials at a time on the cluster's GPUs [count]; None: one a GPU.
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
        n_gpus = int(ray.cluster_resources().get("GPU", 0))
        share = gpu_share(n_gpus, n_processes)
        at_once = min(n_cores, int(n_gpus / share)) if share else n_cores
        gpus = f" and {n_gpus} GPUs, {share:g} of one a trial" if n_gpus else ""
        decided(
            EngineDecision(
                engine="ray", n_processes=min(at_once, len(specs)),
                reason=f"asked for; the cluster has {n_cores} cores{gpus}",
            )
        )  # fmt: skip
        remote = ray.remote(num_cpus=1, num_gpus=share, max_retries=2)(_train_on_node)
        yield from _gather(ray, remote, work, specs, at_once, take)
    finally:
        if ours:
            ray.shutdown()


def gpu_share(n_gpus: int, n_trials: int | None) -> float:
    """GPUs that each of so many trials at a time gets; a whole one unless more trials are asked.

    Examples:
        >>> gpu_share(2, None), gpu_share(2, 8), gpu_share(4, 2), gpu_share(0, 8)
        (1.0, 0.25, 1.0, 0.0)
    """
    if not n_gpus:
        return 0.0
    return min(1.0, n_gpus / (n_trials or n_gpus))


def _gather(
    ray: Any, remote: Any, work: Work, specs: Sequence[TrialSpec], at_once: int, take: Take
) -> Iterator[Trial]:
    """Keep twice as many trials in flight as run at once, so that others can take the rest."""
    shared = ray.put(work)
    groups = (group for group in map(take, chunks(specs, {})) if group)
    running: dict[Any, Sequence[TrialSpec]] = {}
    while True:
        for group in itertools.islice(groups, 2 * at_once - len(running)):
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

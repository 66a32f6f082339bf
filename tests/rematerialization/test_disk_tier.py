"""Training with activations on disk: the same gradients, whatever the disk does."""

import copy
import errno
import gc
import pickle
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.rematerialization.models import looping
from thetaone.errors import DiskTierError, InputError, ScheduleError
from thetaone.records.schedule import DiskCost, Region, Tier
from thetaone.rematerialization.disk_tier import DiskTier
from thetaone.rematerialization.execute import rematerialize
from thetaone.rematerialization.policies import judged
from thetaone.rematerialization.profiler import profile
from thetaone.rematerialization.spill_files import SpillFiles

COST = DiskCost(write_bytes_per_second=1e9, read_bytes_per_second=1e9)
X = torch.linspace(-1, 1, 64).reshape(4, 16)


class FaultyFiles(SpillFiles):
    """Fails as it is told to."""

    def __init__(self, directory: Path, fault: str) -> None:
        super().__init__(directory)
        self.fault = fault

    def write(self, descriptor: int, chunk: memoryview, offset: int) -> int:
        if self.fault == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.fault == "short write":
            return super().write(descriptor, chunk, offset) - 1
        return super().write(descriptor, chunk, offset)

    def read(self, descriptor: int, chunk: memoryview, offset: int) -> int:
        if self.fault == "unreadable":
            raise OSError(errno.EIO, "Input/output error")
        if self.fault == "interrupted":
            raise KeyboardInterrupt
        count = super().read(descriptor, chunk, offset)
        if self.fault == "bit flip":
            chunk[3] ^= 16
        return 0 if self.fault == "short read" else count


def on_disk(start: int, stop: int, tier: Tier = "disk") -> Region:
    return Region(start=start, stop=stop, tier=tier)


def gradients(model: nn.Module) -> list[torch.Tensor]:
    torch.manual_seed(3)
    x = X.clone().requires_grad_()
    model.zero_grad()
    y = model(x)
    y.square().sum().backward()
    grads = [p.grad for p in model.parameters()]
    assert x.grad is not None
    return [y.detach(), x.grad, *(g.clone() for g in grads if g is not None)]


def spilled(regions: list[Region], tier: DiskTier, dropout: float = 0.1) -> nn.Module:
    model = looping(6, dropout=dropout)
    schedule = judged(profile(model, X, repeats=1), regions, policy="by hand", disk=COST)
    return rematerialize(model, schedule, disk=tier)


def same(mine: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(mine) == len(other) and all(map(torch.equal, mine, other))


@pytest.mark.parametrize(
    "regions",
    [
        [on_disk(2, 4)],
        [on_disk(0, 2, "ram"), on_disk(2, 5)],
        [on_disk(0, 5, "ram"), on_disk(0, 2, "ram"), on_disk(2, 4), on_disk(2, 3)],
        [on_disk(1, 5), on_disk(1, 3), on_disk(3, 4)],
        [on_disk(1, 5), on_disk(1, 3, "ram")],
        [on_disk(2, 6), on_disk(3, 5), on_disk(3, 4, "ram")],
    ],
)
def test_gradients_are_bitwise_those_of_store_all(regions: list[Region], tmp_path: Path) -> None:
    expected = gradients(looping(6, dropout=0.1))
    with DiskTier(tmp_path, cost=COST) as tier:
        model = spilled(regions, tier)
        assert same(gradients(model), expected)
        assert same(gradients(model), expected)
        assert tier.used_bytes == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", ["full", "short write"])
def test_what_cannot_be_written_stays_in_memory(fault: str, tmp_path: Path) -> None:
    expected = gradients(looping(6, dropout=0.1))
    with DiskTier(tmp_path, cost=COST, files=FaultyFiles(tmp_path, fault)) as tier:
        model = spilled([on_disk(2, 5)], tier)
        with pytest.warns(RuntimeWarning, match="stay in memory, beyond the budget"):
            assert same(gradients(model), expected)


@pytest.mark.parametrize("fault", ["unreadable", "bit flip", "short read"])
@pytest.mark.parametrize("first", ["ram", "disk"])
def test_what_cannot_be_read_is_computed_again(fault: str, first: Tier, tmp_path: Path) -> None:
    expected = gradients(looping(6, dropout=0.1))
    with DiskTier(tmp_path, cost=COST, files=FaultyFiles(tmp_path, fault)) as tier:
        regions = [on_disk(0, 2, "ram"), on_disk(2, 4, first), on_disk(4, 6)]
        model = spilled(regions, tier)
        with pytest.warns(RuntimeWarning, match="computed again"):
            assert same(gradients(model), expected)


@pytest.mark.parametrize("fault", ["unreadable", "bit flip", "short read"])
def test_a_loss_without_remedy_is_an_error(fault: str, tmp_path: Path) -> None:
    with DiskTier(tmp_path, cost=COST, files=FaultyFiles(tmp_path, fault)) as tier:
        model = spilled([on_disk(2, 5)], tier)  # stage 1 is taped: nothing to compute it from
        with pytest.raises(DiskTierError, match="nothing is kept from which"):
            gradients(model)


def test_a_vanished_directory_keeps_the_gradients(tmp_path: Path) -> None:
    place = tmp_path / "gone"
    place.mkdir()
    expected = gradients(looping(6, dropout=0.1))
    with DiskTier(place, cost=COST) as tier:
        model = spilled([on_disk(2, 5)], tier)
        place.rmdir()
        with pytest.warns(RuntimeWarning, match="No such file"):
            assert same(gradients(model), expected)


def test_a_full_quota_keeps_the_gradients(tmp_path: Path) -> None:
    expected = gradients(looping(6, dropout=0.1))
    cost = COST.model_copy(update={"quota_bytes": 100})
    with DiskTier(tmp_path, 100, cost=cost) as tier:
        model = spilled([on_disk(2, 5)], tier)
        with pytest.warns(RuntimeWarning, match="exceed the quota of 100"):
            assert same(gradients(model), expected)
        assert tier.used_bytes == 0


def test_nothing_leaks(tmp_path: Path) -> None:
    with DiskTier(tmp_path, cost=COST) as tier:
        model = spilled([on_disk(0, 5, "ram"), on_disk(2, 4), on_disk(5, 6)], tier)
        gradients(model)
        gc.collect()
        gc.disable()
        try:
            descriptors = len(list(Path("/proc/self/fd").iterdir()))
            threads = threading.active_count()
            for step in range(100):
                loss = model(X.clone().requires_grad_()).sum()
                if step % 3:  # every third forward has no backward
                    loss.backward()
                del loss
                assert tier.used_bytes == 0
            assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
            assert threading.active_count() == threads
        finally:
            gc.enable()
    assert threading.active_count() == threads - 1


def test_an_interrupt_in_backward_leaves_nothing(tmp_path: Path) -> None:
    files = FaultyFiles(tmp_path, "interrupted")
    expected = gradients(looping(6, dropout=0.1))
    with DiskTier(tmp_path, cost=COST, files=files) as tier:
        model = spilled([on_disk(2, 5)], tier)
        with pytest.raises(KeyboardInterrupt):
            gradients(model)
        gc.collect()
        assert tier.used_bytes == 0
        files.fault = ""
        assert same(gradients(model), expected)


@pytest.mark.parametrize("stride", [(16, 1), (1, 4), (32, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_layout_and_type_survive(
    stride: tuple[int, int], dtype: torch.dtype, tmp_path: Path
) -> None:
    from thetaone.rematerialization.offload import Boundary

    tensor = torch.empty_strided((4, 16), stride, dtype=dtype).normal_()
    with DiskTier(tmp_path, cost=COST) as tier:
        boundary = Boundary(tensor, tier, None)
        boundary.settle()
        back = boundary.fetch()
    assert torch.equal(back, tensor)
    assert (back.stride(), back.dtype) == (tensor.stride(), tensor.dtype)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a directory that is read-only")
def test_a_directory_without_room_for_files_is_named_at_once() -> None:
    with pytest.raises(DiskTierError, match=r"disk='/proc': no file can be made there: .* Pass a"):
        DiskTier("/proc")  # read-only to root as well


def test_bad_tiers_are_named(tmp_path: Path) -> None:
    with pytest.raises(DiskTierError, match="not a directory"):
        DiskTier(tmp_path / "nowhere")
    with pytest.raises(InputError, match="differ: give one quota"):
        DiskTier(tmp_path, 100, cost=COST)
    model = looping(6)
    schedule = judged(profile(model, X, repeats=1), [on_disk(2, 5)], policy="by hand", disk=COST)
    with pytest.raises(ScheduleError, match="pass disk="):
        rematerialize(model, schedule)


def test_a_tier_measures_itself_and_can_be_copied(tmp_path: Path) -> None:
    with DiskTier(tmp_path) as tier:
        assert tier.cost.write_bytes_per_second > 1e6
        assert tier.cost.read_bytes_per_second > 1e6
        assert tier.used_bytes == 0
        for other in (copy.deepcopy(tier), pickle.loads(pickle.dumps(tier))):
            assert other.cost == tier.cost

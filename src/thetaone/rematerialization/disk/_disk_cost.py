"""What transfers cost in a directory, by measurement."""

from pathlib import Path

from thetaone.errors import InputError
from thetaone.records import DiskCost
from thetaone.rematerialization.disk._disk_tier import DiskTier


def disk_cost(disk: DiskCost | DiskTier | str | Path) -> DiskCost:
    """What transfers cost; a directory or a tier is measured.

    Raises:
        InputError: Neither of these.
        DiskTierError: The directory cannot be written.
    """
    if isinstance(disk, DiskCost):
        return disk
    if isinstance(disk, str | Path):
        with DiskTier(disk) as tier:
            return tier.cost
    if isinstance(disk, DiskTier):
        return disk.cost
    raise InputError(f"disk={disk!r}: give a directory, a DiskTier or a DiskCost")

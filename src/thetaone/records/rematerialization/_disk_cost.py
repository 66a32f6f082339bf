"""What transfers to and from disk cost."""

import math
from typing import Any

from thetaone.errors import InputError
from thetaone.records.rematerialization._chain import CheckedRecord


class DiskCost(CheckedRecord):
    """What a transfer to and from disk costs, synchronously.

    Attributes:
        write_bytes_per_second: Sustained writing [bytes/s].
        read_bytes_per_second: Sustained reading [bytes/s].
        file_seconds: Fixed time of each file written or read [s].
        quota_bytes: Most bytes on disk at once [bytes]; None is no limit.
    """

    write_bytes_per_second: float
    read_bytes_per_second: float
    file_seconds: float = 0.0
    quota_bytes: int | None = None

    def model_post_init(self, context: Any, /) -> None:
        """Reject speeds that no disk has."""
        for field in ("write_bytes_per_second", "read_bytes_per_second"):
            if not getattr(self, field) > 0:
                raise InputError(f"disk: {field}={getattr(self, field)}: need more than 0")
        if not (math.isfinite(self.file_seconds) and self.file_seconds >= 0):
            raise InputError(
                f"disk: file_seconds={self.file_seconds}: need a finite time, 0 or more"
            )
        if self.quota_bytes is not None and self.quota_bytes < 0:
            raise InputError(f"disk: quota_bytes={self.quota_bytes}: need 0 bytes or more")

    def write_seconds(self, size: int) -> float:
        """Time to write one activation of ``size`` bytes [s]."""
        return self.file_seconds + size / self.write_bytes_per_second

    def read_seconds(self, size: int) -> float:
        """Time to read one activation of ``size`` bytes [s]."""
        return self.file_seconds + size / self.read_bytes_per_second

import pytest

from thetaone.errors import InputError
from thetaone.records import format_bytes, format_seconds, parse_bytes, parse_seconds

BYTES = [
    ("2GiB", 2**31), ("64 MB", 64_000_000), ("1.5kib", 1536), (17, 17), ("1e6", 10**6),
    ("2G", 2**31), ("512m", 2**29), ("1.5 Gi", 3 * 2**29), ("1_000_000", 10**6), (".5K", 512),
    ("1PiB", 2**50), ("1e18", 10**18),
    ("10MB", 10**7), ("10mb", 10**7), ("10Mb", 10**7), ("10mib", 10 * 2**20),
]  # fmt: skip
SECONDS = [
    ("20ns", 2e-8), ("1.5ms", 1.5e-3), ("3", 3.0), (0.25, 0.25), ("2min", 120), ("20 μs", 2e-5),
]  # fmt: skip
NO_BYTES = [
    "", "GiB", "-2GiB", "2 parsecs", "0", "nan", "0.4", "1e400", "1e400 GiB", "1e-400", "2,5GiB",
    "1e99999999999", 10**40, -3, "10Mbit", "80 bits",
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), BYTES)
def test_parse_bytes(text: str, value: int) -> None:
    assert parse_bytes(text) == value


@pytest.mark.parametrize(("text", "value"), SECONDS)
def test_parse_seconds(text: str, value: float) -> None:
    assert parse_seconds(text) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", NO_BYTES)
def test_bad_bytes_say_what_to_write(text: str | int) -> None:
    with pytest.raises(InputError, match=r"budget=.*(write e\.g\. 512MiB)"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["1e400", "1e400 h", "-1s"])
def test_times_are_finite(text: str) -> None:
    with pytest.raises(InputError, match=r"write e\.g\. 20ns"):
        parse_seconds(text)


def test_bad_seconds_say_what_to_write() -> None:
    with pytest.raises(InputError, match=r"--forward='fast' is not a quantity; write e\.g\. 20ns"):
        parse_seconds("fast", where="--forward")


def test_formats() -> None:
    assert (format_bytes(1536), format_bytes(2**40), format_bytes(3)) == ("1.5 KiB", "1 TiB", "3 B")
    assert (format_seconds(5e-7), format_seconds(90), format_seconds(150)) == (
        "500 ns",
        "90 s",
        "2.5 min",
    )

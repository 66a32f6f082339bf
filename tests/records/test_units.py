import pytest

from thetaone.errors import InputError
from thetaone.records import format_bytes, format_seconds, parse_bytes, parse_seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [("2GiB", 2**31), ("64 MB", 64_000_000), ("1.5kib", 1536), (17, 17), ("1e6", 10**6)],
)
def test_parse_bytes(text: str, value: int) -> None:
    assert parse_bytes(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("20ns", 2e-8), ("1.5ms", 1.5e-3), ("3", 3.0), (0.25, 0.25), ("2min", 120)]
)
def test_parse_seconds(text: str, value: float) -> None:
    assert parse_seconds(text) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", ["", "GiB", "-2GiB", "2 parsecs", "0", "nan", "0.4"])
def test_bad_bytes_say_what_to_write(text: str) -> None:
    with pytest.raises(InputError, match=r"budget=.*(write e\.g\. 512MiB)"):
        parse_bytes(text)


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

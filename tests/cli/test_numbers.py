import pytest

from thetaone.cli._numbers import parse_integers
from thetaone.errors import InputError


@pytest.mark.parametrize("text", ["", "a,b", "1.5", "32,,64", "32;64"])
def test_what_is_not_a_list_of_whole_numbers_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--widths=.*: need whole numbers, e\.g\. 32,64,128"):
        parse_integers(text, option="--widths")

"""Lists of whole numbers on the command line."""

from thetaone.errors import InputError


def parse_integers(text: str, *, option: str) -> tuple[int, ...]:
    """Whole numbers separated by commas.

    Args:
        text: E.g. ``"32,64,128"``.
        option: Name of the option, for the message.

    Raises:
        InputError: Something between two commas is not a whole number.

    Examples:
        >>> parse_integers("32,64,128", option="--widths")
        (32, 64, 128)
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        example = "0,1,2" if option == "--seeds" else "32,64,128"
        raise InputError(f"{option}={text!r}: need whole numbers, e.g. {example}") from None

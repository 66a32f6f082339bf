"""Names and counts in sentences."""

import re
from collections.abc import Iterable


def counted(number: int, thing: str) -> str:
    """A number of things; the plural where there is not one.

    Examples:
        >>> counted(1, "step"), counted(3, "step"), counted(2, "frequency")
        ('1 step', '3 steps', '2 frequencies')
    """
    plural = f"{thing[:-1]}ies" if thing.endswith("y") else f"{thing}s"
    return f"{number:,} {thing if number == 1 else plural}"


def any_block(name: str) -> str:
    """A parameter's or module's name with its numbers replaced by stars; a bare number stays.

    Examples:
        >>> any_block("blocks.3.mlp.up"), any_block("blocks.0 logits"), any_block("2")
        ('blocks.*.mlp.up', 'blocks.* logits', '2')
    """
    if name.isdigit():  # a layer of a Sequential, which is like no other
        return name
    return re.sub(r"(?<![^.])\d+(?![^. ])", "*", name)


def listed(names: Iterable[str], most: int = 6) -> str:
    """Names in a sentence; beyond ``most`` of them, numbered blocks share one.

    Examples:
        >>> listed(["blocks.0.up", "blocks.1.up", "head"], most=2)
        'blocks.*.up, head'
    """
    names = list(names)
    if len(names) > most:
        names = list(dict.fromkeys(map(any_block, names)))
    return ", ".join(names)

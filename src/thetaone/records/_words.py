"""Names and counts in sentences."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable

_GLUED = re.compile(r"(?<![^.])([^. ]*[^.\d ])(\d+)(?=[. ]|$)")  # layer3, block_3


def counted(number: int, thing: str) -> str:
    """A number of things; the plural where there is not one.

    Examples:
        >>> counted(1, "step"), counted(3, "step"), counted(2, "frequency")
        ('1 step', '3 steps', '2 frequencies')
    """
    plural = f"{thing[:-1]}ies" if thing.endswith("y") else f"{thing}s"
    return f"{number:,} {thing if number == 1 else plural}"


def interval_words(low: float, high: float, digits: str = ".2f") -> str:
    """An interval as ``[low, high]``; in words where an end is open.

    Args:
        low: Lower end; -inf (or NaN) where nothing bounds it.
        high: Upper end; inf (or NaN) where nothing bounds it.
        digits: Format of a number.

    Examples:
        >>> interval_words(-8.0, -7.25), interval_words(float("-inf"), -7.0)
        ('[-8.00, -7.25]', 'at most -7.00')
        >>> interval_words(float("-inf"), float("inf"))
        'not bracketed'
    """
    if math.isfinite(low) and math.isfinite(high):
        return f"[{low:{digits}}, {high:{digits}}]"
    if math.isfinite(high):
        return f"at most {high:{digits}}"
    return f"at least {low:{digits}}" if math.isfinite(low) else "not bracketed"


def any_block(name: str) -> str:
    """A parameter's or module's name with its numbers replaced by stars; a bare number stays.

    Examples:
        >>> any_block("blocks.3.mlp.up"), any_block("blocks.0 logits"), any_block("2")
        ('blocks.*.mlp.up', 'blocks.* logits', '2')
    """
    if name.isdigit():  # a layer of a Sequential, which is like no other
        return name
    return re.sub(r"(?<![^.])\d+(?![^. ])", "*", name)


def block_kinds(names: Iterable[str]) -> dict[str, str]:
    """Each name with stars for the numbers of blocks, those glued to a word included.

    ``layer0`` and ``layer1`` are blocks where a module of one name lies in both; ``fc1`` and
    ``fc2`` hold none, and stay.

    Examples:
        >>> names = ["layer0.fc1.weight", "layer0.fc2.weight", "layer1.fc1.weight"]
        >>> list(block_kinds(names).values())
        ['layer*.fc1.weight', 'layer*.fc2.weight', 'layer*.fc1.weight']
    """
    starred = {name: any_block(name) for name in names}
    numbers: dict[tuple[str, str, str], set[str]] = defaultdict(set)  # by place, word, what is in
    for name in starred.values():
        for at in _GLUED.finditer(name):
            numbers[name[: at.start()], at[1], name[at.end() :]].add(at[2])
    stacks = {
        (place, word)
        for (place, word, within), of in numbers.items()
        if len(of) > 1 and within.count(".") > 1  # a module, and what it holds
    }

    def star(at: re.Match[str]) -> str:
        block = (at.string[: at.start()], at[1]) in stacks
        return f"{at[1]}*" if block else at[0]

    return {name: _GLUED.sub(star, words) for name, words in starred.items()}


def listed(names: Iterable[str], most: int = 6) -> str:
    """Names in a sentence; beyond ``most`` of them, numbered blocks share one.

    Examples:
        >>> listed(["blocks.0.up", "blocks.1.up", "head"], most=2)
        'blocks.*.up, head'
    """
    names = list(names)
    if len(names) > most:
        names = list(dict.fromkeys(block_kinds(names).values()))
    return ", ".join(names)

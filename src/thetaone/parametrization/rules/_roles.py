"""Roles from two widths: what grows decides what a parameter is. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod

from thetaone.errors import InputError, MismatchError
from thetaone.parametrization._names import wildcard
from thetaone.parametrization.rules._pair import Pair
from thetaone.parametrization.rules._width import (
    BOTTLENECK,
    FIXED,
    HIDDEN,
    INPUT,
    OUTPUT,
    ROLES,
    VECTOR,
)
from thetaone.records import LOOKUP, RAW, Site, Use
from thetaone.records import VECTOR as VECTOR_SITE


@dataclass(frozen=True, slots=True)
class Assignment:
    """The role of one target parameter, its base and its growth.

    Attributes:
        role: A role of Table 3.
        base: Its counterpart.
        r_in: Growth of its fan-in.
        r_out: Growth of its fan-out.
        copies: The part of that which other parameters make, as of heads in a list.
        problem: Why the role is not known; empty when it is.
    """

    role: str
    base: Site
    r_in: float = 1.0
    r_out: float = 1.0
    copies: float = 1.0
    problem: str = ""


def override(name: str, patterns: Mapping[str, str]) -> str | None:
    """The role that a user's glob patterns give a name; the last match wins.

    Raises:
        InputError: The role does not exist.
    """
    chosen = None
    for pattern, role in patterns.items():
        if role not in ROLES:
            raise InputError(f"roles[{pattern!r}]={role!r}: choose one of {', '.join(ROLES)}")
        if fnmatchcase(name, pattern):
            chosen = role
    return chosen


def assign(pair: Pair, site: Site, forced: str | None = None) -> Assignment:
    """The role of one parameter.

    Args:
        pair: Target and base.
        site: In the target.
        forced: A role that the user overrides.

    Returns:
        The role; where uses and shapes leave it open, with the problem in words.

    Raises:
        MismatchError: Target and base differ in more than width.
    """
    base = pair.bases[site.name]
    _check_same_code(site, base)
    if forced is not None:
        return _forced(site, base, forced)
    growth, copies = _growth(pair, site), pair.copies(site.name)
    if text := _open_question(site, growth):
        return _problem(pair, site, base, text)
    ((r_in, r_out),) = growth
    if site.kind == VECTOR_SITE:
        return Assignment(VECTOR if r_out != 1 else FIXED, base, 1.0, r_out, copies)
    role = _role(r_in, r_out)
    if role == OUTPUT and any(use.order in pair.wide_below for use in site.uses):
        role = BOTTLENECK
    return Assignment(role, base, r_in, r_out, copies)


def _open_question(site: Site, growth: set[tuple[float, float]]) -> str:
    """What uses and shapes leave open of a parameter's role, in words; empty for nothing."""
    if site.kind == RAW:
        return site.problem or "its use is not known"
    if len(growth) != 1:
        return "its uses grow differently with width"
    ((r_in, r_out),) = growth
    spectral = any(use.how == "spectral" for use in site.uses)
    if spectral and site.kind != VECTOR_SITE and r_in != r_out:
        return "spectral_norm holds its norm at 1 whatever the width, where it should change"
    return ""


def candidates(site: Site, base: Site) -> list[str]:
    """The roles that a parameter's axes allow.

    Examples:
        >>> candidates(Site(name="w", kind="raw", module="M", shape=(8, 4)),
        ...            Site(name="w", kind="raw", module="M", shape=(2, 4)))
        ['input', 'output', 'bottleneck', 'vector']
    """
    growing = sum(a != b for a, b in zip(site.shape, base.shape, strict=True))
    if growing == 0:
        return [FIXED]
    one = (
        [INPUT, OUTPUT, BOTTLENECK] if len([n for n in site.shape if n > 1]) > 1 or growing else []
    )
    return [HIDDEN, VECTOR] if growing > 1 else [*one, VECTOR]


def _problem(pair: Pair, site: Site, base: Site, text: str) -> Assignment:
    choices = candidates(site, base)
    if choices == [FIXED]:
        return Assignment(FIXED, base)
    return Assignment(
        FIXED, base,
        problem=f"{site.name} {base.shape} -> {site.shape}: {text}; its axes allow "
        f"{', '.join(choices)}. Say which: roles={{{_pattern(pair, site)!r}: …}}",
    )  # fmt: skip


def _pattern(pair: Pair, site: Site) -> str:
    """A pattern of a parameter and its likes in other blocks that leave the same open.

    Its name where a pattern would also give a role to one whose role is known.
    """
    pattern = wildcard(site.name)
    hits = {
        (one.kind, one.module, one.shape, _open_question(one, _growth(pair, one)))
        for one in pair.target.sites
        if fnmatchcase(one.name, pattern)
    }
    return pattern if len(hits) == 1 else site.name


def _growth(pair: Pair, site: Site) -> set[tuple[float, float]]:
    """Growth of the fans in each use, of all its likes that stand side by side."""
    base, copies = pair.bases[site.name], pair.copies(site.name)
    ours, theirs = site.uses or (site,), base.uses or (base,)
    if len(ours) != len(theirs):
        ours, theirs = ours[:1], theirs[:1]
    return {
        (_ratio(a.fan_in, b.fan_in), copies * _ratio(_features(a), _features(b)))
        for a, b in zip(ours, theirs, strict=True)
    }


def _features(use: Use | Site) -> int:
    """Features of the result, of all matrices side by side."""
    return use.fan_out * (use.copies if isinstance(use, Use) else 1)


def _role(r_in: float, r_out: float) -> str:
    if r_in != 1:
        return HIDDEN if r_out != 1 else OUTPUT
    return INPUT if r_out != 1 else FIXED


def _forced(site: Site, base: Site, role: str) -> Assignment:
    growth = [_ratio(a, b) for a, b in zip(site.shape, base.shape, strict=True)]
    most = max(growth, default=1.0, key=lambda ratio: max(ratio, 1 / ratio))
    read = site.kind not in (RAW, VECTOR_SITE)
    r_in = _ratio(site.fan_in, base.fan_in) if read else most
    r_out = _ratio(site.fan_out, base.fan_out) if read else most
    ratios = {
        INPUT: (1.0, r_out if r_out != 1 else most),
        VECTOR: (1.0, prod(growth)),
        OUTPUT: (r_in if r_in != 1 else most, 1.0),
        BOTTLENECK: (r_in if r_in != 1 else most, 1.0),
        HIDDEN: (r_in, r_out),
        FIXED: (1.0, 1.0),
    }
    return Assignment(role, base, *ratios[role])


def _ratio(size: int, base: int) -> float:
    return size / base if base else 1.0


def _check_same_code(site: Site, base: Site) -> None:
    same = (site.kind, site.module, len(site.shape), bool(site.readout))
    if RAW not in (site.kind, base.kind) and same != (
        base.kind, base.module, len(base.shape), bool(base.readout)
    ):  # fmt: skip
        raise MismatchError(
            f"{site.name} is {site.module}{site.shape} in the target and "
            f"{base.module}{base.shape} in the base: they may differ in width and depth only"
        )
    pairs = list(zip(site.shape, base.shape, strict=True))
    if any(a < b for a, b in pairs) and any(a > b for a, b in pairs):
        raise MismatchError(
            f"{site.name}: from base {base.shape} to target {site.shape} one axis grows and "
            "another shrinks. Build both with the same code at two widths; either may be the base"
        )
    if site.kind == LOOKUP and site.shape[0] != base.shape[0]:
        raise MismatchError(
            f"{site.name} has {base.shape[0]} rows in the base and {site.shape[0]} in the target: "
            "use one vocabulary for both, or, where its rows belong to features (weights of an "
            "embedding_bag), write the product with the matrix, h @ W"
        )

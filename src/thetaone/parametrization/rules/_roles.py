"""Roles from two widths: what grows decides what a parameter is. No torch."""

from collections import defaultdict
from collections.abc import Mapping
from fnmatch import fnmatchcase
from math import log, prod
from typing import NamedTuple

from thetaone.errors import InputError, MismatchError, RoleError
from thetaone.parametrization._names import place, read_stacks, wildcard
from thetaone.parametrization.rules._width import FIXED, HIDDEN, INPUT, OUTPUT, ROLES, VECTOR
from thetaone.records import RAW, Blueprint, Site
from thetaone.records import VECTOR as VECTOR_SITE


class Assignment(NamedTuple):
    """The role of one target parameter, its base and its growth."""

    role: str
    base: Site
    r_in: float
    r_out: float


def override(name: str, patterns: Mapping[str, str]) -> str | None:
    """The role that a user's glob patterns give a name; the last match wins.

    Raises:
        InputError: The role does not exist.
    """
    role = None
    for pattern, wanted in patterns.items():
        if wanted not in ROLES:
            raise InputError(f"roles[{pattern!r}]={wanted!r}: choose one of {', '.join(ROLES)}")
        if fnmatchcase(name, pattern):
            role = wanted
    return role


def match_base(target: Blueprint, base: Blueprint) -> dict[str, Site]:
    """The base site of every target parameter: same name, or same name up to layer numbers.

    Raises:
        MismatchError: A parameter has no counterpart, or several that differ.
    """
    names = [site.name for site in target.sites]
    if names == [site.name for site in base.sites]:
        return {name: base.by_name[name] for name in names}
    stacks = read_stacks(target, base)
    groups: dict[str, list[Site]] = defaultdict(list)
    for site in base.sites:
        groups[place(site.name, stacks)].append(site)
    found: dict[str, Site] = {}
    for site in target.sites:
        candidates = groups.get(place(site.name, stacks), [])
        if not candidates:
            raise MismatchError(
                f"{site.name} {site.shape} has no counterpart in the base: base and target may "
                "differ in width and depth only. Build both with the same code"
            )
        if len({(c.kind, c.shape) for c in candidates}) > 1:
            shapes = ", ".join(f"{c.name} {c.shape}" for c in candidates)
            raise MismatchError(
                f"{site.name} {site.shape} cannot be told apart among {shapes} of a base of "
                "another depth: give repeated blocks a container of their own, so that their "
                "names differ only in the block's number"
            )
        found[site.name] = base.by_name.get(site.name, candidates[0])
    present = {place(name, stacks) for name in names}
    for site in base.sites:
        if place(site.name, stacks) not in present:
            raise MismatchError(
                f"{site.name} {site.shape} of the base is missing in the target: they may differ "
                "in width and depth only"
            )
    return found


def assign(site: Site, base: Site, forced: str | None = None) -> Assignment:
    """The role of one parameter.

    Args:
        site: In the target.
        base: Its counterpart in the base.
        forced: A role that the user overrides.

    Raises:
        MismatchError: Target and base differ in more than width, or in opposite directions.
        RoleError: The shapes allow several roles.
    """
    _check_same_use(site, base)
    if forced is not None:
        return _forced(site, base, forced)
    if site.kind == RAW:
        return _raw(site, base)
    r_in, r_out = _ratio(site.fan_in, base.fan_in), _ratio(site.fan_out, base.fan_out)
    if site.kind == VECTOR_SITE:
        return Assignment(VECTOR if r_out != 1 else FIXED, base, 1.0, r_out)
    return Assignment(_role(r_in, r_out), base, r_in, r_out)


def _role(r_in: float, r_out: float) -> str:
    if r_in != 1:
        return HIDDEN if r_out != 1 else OUTPUT
    return INPUT if r_out != 1 else FIXED


def _raw(site: Site, base: Site) -> Assignment:
    """The last two axes of a parameter whose use is not known: (…, in, out) or (…, out, in)."""
    growth = [_ratio(a, b) for a, b in zip(site.shape, base.shape, strict=True)]
    first, second = growth[-2:]
    if first == second:  # the orientation does not matter; leading axes (experts) do not sum
        return Assignment(_role(first, second), base, first, second)
    raise RoleError(
        f"{site.name} {base.shape} -> {site.shape} belongs to {site.module}, whose use of it is "
        "not known: it can be input, output or vector. Say which: "
        f"roles={{{wildcard(site.name)!r}: 'vector'}}"
    )


def _forced(site: Site, base: Site, role: str) -> Assignment:
    growth = [_ratio(a, b) for a, b in zip(site.shape, base.shape, strict=True)]
    most = _furthest(*growth)
    known = site.kind not in (RAW, VECTOR_SITE)
    r_in = _ratio(site.fan_in, base.fan_in) if known else most
    r_out = _ratio(site.fan_out, base.fan_out) if known else most
    ratios = {
        INPUT: (1.0, _furthest(r_out, most)),
        VECTOR: (1.0, prod(growth)),
        OUTPUT: (_furthest(r_in, most), 1.0),
        HIDDEN: (r_in, r_out),
        FIXED: (1.0, 1.0),
    }
    return Assignment(role, base, *ratios[role])


def _furthest(*ratios: float) -> float:
    """The ratio furthest from 1; the base may be narrower or wider than the target."""
    return max(ratios, key=lambda ratio: abs(log(ratio)), default=1.0)


def _ratio(size: int, base: int) -> float:
    return size / base if base else 1.0


def _check_same_use(site: Site, base: Site) -> None:
    same = (site.kind, site.module, len(site.shape), bool(site.readout))
    if same != (base.kind, base.module, len(base.shape), bool(base.readout)):
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
    if site.kind == "lookup" and site.shape[0] != base.shape[0]:
        raise MismatchError(
            f"{site.name} has {base.shape[0]} rows in the base and {site.shape[0]} in the target: "
            "use one vocabulary for both"
        )

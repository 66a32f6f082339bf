"""Target and base as one pair: which parameter is which, what grew, what feeds what. No torch."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TypeVar

from thetaone.errors import MismatchError
from thetaone.parametrization._names import numbers_in, place, read_stacks
from thetaone.records import MATRIX, Blueprint, Branch, FeatureProduct, Reduction, Site

_SAME = 1e-9  # relative; what rounding leaves of a ratio of counts

Fact = TypeVar("Fact", FeatureProduct, Reduction)


@dataclass(frozen=True)
class Pair:
    """Two blueprints of the same code; what follows from both is found once.

    Attributes:
        target: The model to be trained.
        base: Where the learning rate was tuned; wider or narrower.
    """

    target: Blueprint
    base: Blueprint

    @cached_property
    def stacks(self) -> frozenset[str]:
        """The places of the containers whose blocks differ in number."""
        same = [s.name for s in self.target.sites] == [s.name for s in self.base.sites]
        return frozenset() if same else read_stacks(self.target, self.base)

    @cached_property
    def bases(self) -> dict[str, Site]:
        """The base site of every target parameter: same name, or same up to block numbers.

        Raises:
            MismatchError: A parameter has no counterpart, or several that differ.
        """
        groups: dict[str, list[Site]] = defaultdict(list)
        for site in self.base.sites:
            groups[self.place(site.name)].append(site)
        matched = {site.name: self._base_of(site, groups) for site in self.target.sites}
        present = {self.place(site.name) for site in self.target.sites}
        for site in self.base.sites:
            if self.place(site.name) not in present:
                raise MismatchError(
                    f"{site.name} {site.shape} of the base is missing in the target: they may "
                    "differ in width and depth only"
                )
        return matched

    @cached_property
    def parallel(self) -> dict[str, float]:
        """The stacks whose blocks stand side by side, as heads do, and the growth of their number.

        They add to width: together they are one layer.
        """
        growth: dict[str, float] = {}
        for stack in self.stacks:
            sides = (self.target, self.base)
            if any(self._is_parallel(stack, one) for one in sides):
                counts = [self._blocks_in(stack, one) for one in sides]
                growth[stack] = counts[0] / counts[1]
        return growth

    def copies(self, name: str) -> float:
        """Growth of the number of a parameter's likes that stand beside it."""
        if not self.parallel:
            return 1.0
        place = self.place(name)
        return prod(r for stack, r in self.parallel.items() if place.startswith(f"{stack}.*."))

    @cached_property
    def depth_growth(self) -> dict[str, float]:
        """How many times more blocks a place is found in one after another, where not as many."""
        if not self.stacks:
            return {}
        sides = (self.target, self.base)
        counts, bases = (Counter(self.place(site.name) for site in b.sites) for b in sides)
        shared = [name for name in counts if name in bases]
        growth = {name: counts[name] / bases[name] / self.copies(name) for name in shared}
        return {name: r for name, r in growth.items() if abs(r - 1) > _SAME}

    @cached_property
    def factor_growth(self) -> dict[str, float]:
        """By place: growth of the number that the pass multiplies a parameter with."""
        return {
            self.place(site.name): site.factor / self.bases[site.name].factor
            for site in self.target.sites
            if self.bases[site.name].factor
        }

    @cached_property
    def branches(self) -> list[Branch]:
        """The target's branches with places for names: one for all blocks of a stack."""
        return list(self.placed_branches(self.target) or self.placed_branches(self.base))

    @cached_property
    def wide_below(self) -> frozenset[int]:
        """Orders of the target's uses whose result reaches features that grow."""
        fed_by: dict[int, set[int]] = defaultdict(set)
        wide: list[int] = []
        for site in self.target.sites:
            for use in site.all_uses:
                fed_by[use.order].update(use.after)
                if self.grows(site) and use.kind in (MATRIX, "vector", "lookup"):
                    wide.append(use.order)
        reached: set[int] = set()
        front = [order for use in wide for order in fed_by[use]]
        while front:
            order = front.pop()
            if order not in reached:
                reached.add(order)
                front.extend(fed_by[order])
        return frozenset(reached)

    def grows(self, site: Site) -> bool:
        """Whether a parameter of the target meets features whose number changes."""
        base = self.bases[site.name]
        fans = (site.fan_in, site.fan_out) != (base.fan_in, base.fan_out)
        return fans or self.copies(site.name) != 1

    def behind(self, *orders: int) -> frozenset[str]:
        """Parameters of the target that are felt through some of its uses alone."""
        takers: dict[int, set[int]] = defaultdict(set)
        uses = [(site.name, use) for site in self.target.sites for use in site.all_uses]
        for _, use in uses:
            for fed in use.after:
                takers[fed].add(use.order)
        through = set(orders)
        for before in sorted({u.order for _, u in uses if u.order < max(orders)}, reverse=True):
            if takers[before] and takers[before] <= through:
                through.add(before)
        elsewhere = {name for name, use in uses if use.order not in through}
        return frozenset(name for name, _ in uses if name not in elsewhere)

    def fed_alone(self, order: int) -> frozenset[str]:
        """Matrices of the target that take in what one use makes and nothing else, up to a norm."""
        uses = [(site, use) for site in self.target.sites for use in site.all_uses]
        through, names = {order}, set[str]()
        for site, use in sorted(uses, key=lambda entry: entry[1].order):
            if use.after and through.issuperset(use.after):
                if use.kind == MATRIX:
                    names.add(site.name)
                if use.kind == MATRIX or use.operation in ("add", "sub", "mul"):
                    through.add(use.order)
        return frozenset(names)

    def place(self, name: str) -> str:
        """A name with ``*`` for the numbers that count blocks of a stack."""
        return place(name, self.stacks)

    def placed_branches(self, blueprint: Blueprint) -> Iterator[Branch]:
        """A blueprint's branches by place, each once."""
        placed: dict[Hashable, Branch] = {}
        for branch in blueprint.branches:
            fields = {
                key: tuple(dict.fromkeys(map(self.place, getattr(branch, key))))
                for key in ("ends", "outputs", "inside", "within")
            }
            one = branch.model_copy(update=fields)
            first = placed.setdefault(one.ends or one.outputs, one)
            within = tuple(dict.fromkeys((*first.within, *one.within)))
            placed[one.ends or one.outputs] = first.model_copy(update={"within": within})
        yield from placed.values()

    def products(self) -> Iterator[tuple[FeatureProduct, FeatureProduct]]:
        """Each product of features in the target with its like in the base."""
        return self._alike(self.target.products, self.base.products)

    def reductions(self) -> Iterator[tuple[Reduction, Reduction]]:
        """Each reduction in the target with its like in the base."""
        return self._alike(self.target.reductions, self.base.reductions)

    def _alike(self, target: Iterable[Fact], base: Iterable[Fact]) -> Iterator[tuple[Fact, Fact]]:
        """Pairs of the same module and operation, counted within the module."""
        named = dict(_counted(base, lambda name: name))
        placed = dict(_counted(base, self.place))
        by_name = list(_counted(target, lambda name: name))
        for (key, fact), (at, _) in zip(by_name, _counted(target, self.place), strict=True):
            other = named.get(key) or placed.get((self.place(fact.where), *at[1:2], key[2]))
            if other is not None:
                yield fact, other

    def _is_parallel(self, stack: str, blueprint: Blueprint) -> bool:
        """Whether each part of some concatenation is made by a block of its own."""
        for sides in blueprint.joined:
            numbers = [
                {numbers_in(name, stack, self.stacks) for name in side} - {None} for side in sides
            ]
            blocks = [block for block in numbers if block]
            one_each = all(len(block) == 1 for block in blocks)
            if one_each and 1 < len(blocks) == len(set().union(*blocks)):
                return True
        return False

    def _blocks_in(self, stack: str, blueprint: Blueprint) -> int:
        """How many blocks the largest container of a stack holds."""
        pairs = {numbers_in(site.name, stack, self.stacks) for site in blueprint.sites} - {None}
        return max(Counter(pair[0] for pair in pairs if pair).values())

    def _base_of(self, site: Site, groups: dict[str, list[Site]]) -> Site:
        same = self.base.by_name.get(site.name)
        candidates = groups.get(self.place(site.name), [])
        if same is not None and not self.stacks:
            return same
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
        return same if same is not None else candidates[0]


def pair_of(target: Blueprint, base: Blueprint) -> Pair:
    """Two blueprints, each matrix that is used transposed too read as what makes wide features."""
    pair = Pair(target, base)
    turned = {
        pair.place(site.name)
        for site in target.sites
        if site.turned and (other := pair.bases[site.name]).turned
        and site.fan_in != other.fan_in and site.fan_out == other.fan_out
    }  # fmt: skip
    if not turned:
        return pair
    sides = [
        one.unchecked_copy(sites=tuple(
            site.turned if site.turned and pair.place(site.name) in turned else site
            for site in one.sites
        ))
        for one in (target, base)
    ]  # fmt: skip
    return Pair(*sides)


def _counted(facts: Iterable[Fact], named: "object") -> Iterator[tuple[tuple[str, str, int], Fact]]:
    counts: Counter[tuple[str, str]] = Counter()
    for fact in facts:
        key = (named(fact.where), fact.operation)  # type: ignore[operator]
        yield (*key, counts[key]), fact
        counts[key] += 1

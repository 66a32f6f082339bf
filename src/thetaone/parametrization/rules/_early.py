"""Gradients that are smaller in the first steps than later. No torch.

A gradient with respect to few numbers that act on wide features, such as attention logits, gates or
a latent, is a sum over r times as many features v of v·∂L/∂v. Of random signs at first, it is
Θ(1/√r); once features are learnt they align, and it is Θ(1). A learning rate must be right for
what stays: one √r larger would even the first step and grow with width from then on. Where the
model returns those numbers, their gradient is the loss's own and Θ(1) from the start.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from thetaone.parametrization.rules._pair import Pair
from thetaone.parametrization.rules._roles import Assignment
from thetaone.parametrization.rules._width import BOTTLENECK, HIDDEN
from thetaone.records import MATRIX, FeatureProduct


def late_sums(
    pair: Pair,
    assignments: Mapping[str, Assignment],
    products: Iterable[tuple[FeatureProduct, float]],
    small: Mapping[str, float],
) -> dict[str, float]:
    """Growth of the sums through which alone a parameter is felt, by name.

    Args:
        pair: Target and base.
        assignments: Roles by name.
        products: As ``late_products`` gives them.
        small: As ``small_inputs`` gives them.
    """
    late: dict[str, float] = defaultdict(lambda: 1.0)
    for name, growth in small.items():
        late[name] *= growth
    for product, growth in products:
        for name in product.behind:
            late[name] *= growth
    latents = {
        pair.target.by_name[name].uses[0].order: assignment.r_in
        for name, assignment in assignments.items()
        if assignment.role == BOTTLENECK and pair.target.by_name[name].uses
    }
    latents |= dict(_tied_latents(pair, assignments))
    through_one: set[str] = set()
    for order, growth in latents.items():
        names = pair.behind(order)
        through_one |= names
        for name in names:
            late[name] *= growth
    for name in pair.behind(*latents) - through_one if latents else ():  # a mean and a variance
        late[name] *= min(latents.values())
    return dict(late)


def small_inputs(pair: Pair, assignments: Mapping[str, Assignment]) -> dict[str, float]:
    """Growth of the latents, over their features', that matrices take in alone, by name.

    A latent's weights start as 1/r, so that it starts as 1/√r, and what is made from it alone up to
    the next norm: updates of matrices behind it act on inputs that are so much smaller at first.
    One whose features grow too, but less, starts as √(r_out/r_in).

    Args:
        pair: Target and base.
        assignments: Roles by name.
    """
    small: dict[str, float] = {}
    for name, assignment in assignments.items():
        site = pair.target.by_name[name]
        uses = () if site.normed else site.uses
        narrows = assignment.role == HIDDEN and assignment.r_out < assignment.r_in
        if (assignment.role == BOTTLENECK or narrows) and uses:
            growth = assignment.r_in / assignment.r_out
            for taker in pair.fed_alone(uses[0].order) - {name}:
                small[taker] = max(small.get(taker, 1.0), growth)
    for order, growth in _tied_latents(pair, assignments):
        for taker in pair.fed_alone(order):
            small[taker] = max(small.get(taker, 1.0), growth)
    return small


def _tied_latents(pair: Pair, assignments: Mapping[str, Assignment]) -> Iterator[tuple[int, float]]:
    """Readouts inside the model by a matrix that makes wide features too: order, growth.

    As of a memory whose rows are both keys and values.
    """
    for name, assignment in assignments.items():
        site = pair.target.by_name[name]
        for use in (site.readout, *site.readouts) if site.readout else ():
            if use and use.order in pair.wide_below:
                yield use.order, assignment.r_out


def late_products(pair: Pair) -> Iterator[tuple[FeatureProduct, float]]:
    """The sums over products of features that wide features are made from, and their growth."""
    last = 0
    for site in pair.target.sites:
        orders = [use.order for use in site.all_uses if use.kind == MATRIX]
        if orders and pair.grows(site):
            last = max(last, *orders)
    for product, base in pair.products():
        if product.order < last and product.spread == base.spread:
            yield product, product.size / base.size

"""Factors of the forward pass that are folded into parameters. No torch."""

from thetaone.parametrization._names import wildcard
from thetaone.parametrization.rules._heads import head_folds
from thetaone.parametrization.rules._width import MATRIX, bilinear_init, init_factor
from thetaone.records import FEATURE_UPDATE, LOOKUP, OWN_UPDATE, UPDATE_NORM, WEIGHT_NORM, Blueprint


def forward_folds(target: Blueprint, base: Blueprint | None) -> dict[str, float]:
    """Factor to fold into each parameter so that what the forward pass does to it stays as it is.

    Args:
        target: The model to be trained.
        base: Where the rate was tuned; ``None``: relative to a factor of 1, heads as they are.

    Returns:
        ``{parameter: factor}`` of the parameters that need one.
    """
    folds = head_folds(target, base) if base is not None else {}
    bases = {wildcard(site.name): site.lookup_scale for site in base.sites} if base else {}
    for site in target.sites:
        factor = bases.get(wildcard(site.name), 1.0) / site.lookup_scale
        if site.kind == LOOKUP and factor != 1.0:
            folds[site.name] = factor
    return folds


def expected_sizes(target: Blueprint, base: Blueprint) -> dict[tuple[str, str], float]:
    """How weights and features of folded parameters change when they are right.

    Returns:
        ``{(layer, quantity): factor}`` from base to target; 1 where it is not named. An embedding
        puts its factor on its own output, which therefore stays; a query's is put on later. The
        norm of a flattened bilinear weight counts all inputs, of which x ⊗ z are few.
    """
    lookups = {site.name for site in target.sites if site.kind == LOOKUP}
    sizes: dict[tuple[str, str], float] = {}
    for name, factor in forward_folds(target, base).items():
        own = (WEIGHT_NORM, UPDATE_NORM)
        quantities = own if name in lookups else (*own, FEATURE_UPDATE, OWN_UPDATE)
        sizes |= {(name.removesuffix(".weight"), quantity): factor for quantity in quantities}
    bases = {site.name: site for site in base.sites if site.fan_one}
    for site in target.sites:
        if narrow := bases.get(site.name):
            r_in, r_one, r_out = (
                getattr(site, fan) / getattr(narrow, fan)
                for fan in ("fan_in", "fan_one", "fan_out")
            )
            right = bilinear_init(r_in, r_one, r_out)
            flattened = init_factor(MATRIX, r_in, r_out)
            sizes[site.name.removesuffix(".weight"), WEIGHT_NORM] = right / flattened
    return sizes

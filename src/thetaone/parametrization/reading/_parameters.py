"""A model's parameters by name, whatever wraps the model."""

from torch import nn

from thetaone.parametrization._names import canonical


def parameters_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter by its canonical name; one that is tied once.

    Examples:
        >>> list(parameters_of(nn.DataParallel(nn.Linear(2, 3))))
        ['weight', 'bias']
    """
    return {canonical(name): parameter for name, parameter in model.named_parameters()}


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Those that require a gradient.

    Examples:
        >>> model = nn.Linear(2, 3)
        >>> _ = model.bias.requires_grad_(False)
        >>> list(trained_parameters(model))
        ['weight']
    """
    return {name: p for name, p in parameters_of(model).items() if p.requires_grad}

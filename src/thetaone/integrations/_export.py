"""``export`` of a model whatever this library did to it: factors in weights, blocks as written."""

from torch import nn

from thetaone.parametrization import export as export_parametrized
from thetaone.rematerialization import as_written


def export(model: nn.Module) -> nn.Module:
    """A copy that computes the same without anything of thetaone: weights, config, class.

    Factors that a parametrization applies are multiplied into the weights, blocks of a
    rematerialized model run as they were written, watching hooks are left behind. The given model
    stays as it is.

    Args:
        model: Trained or not; compiled or wrapped by DDP, it is unwrapped.

    Returns:
        A module of the model's own class: ``state_dict``, ``save_pretrained``, ``torch.export``
        and ``pickle`` need no thetaone to be read again.

    Raises:
        InputError: A factor cannot be written into weights, or weights are sharded or on the meta
            device: the message says what to do.

    Examples:
        >>> import torch, thetaone as t1
        >>> model = nn.Linear(4, 4)
        >>> optimizer = t1.parametrize(model, base=nn.Linear(2, 2), lr=0.1)
        >>> torch.equal(t1.export(model)(torch.ones(4)), model(torch.ones(4)))
        True
    """
    with as_written(model):
        return export_parametrized(model)

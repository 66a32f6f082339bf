"""ARM: augment, REINFORCE, merge — for Bernoulli."""

from torch import Tensor

from thetaone.estimators.methods._bernoulli import BernoulliPair, WeightedPair


class ARM(BernoulliPair):
    """ĝ = (f(b) − f(b'))(u − ½), b = 1[u > 1 − p], b' = 1[u < p], for the logits.

    Unbiased for any f: both b and b' are Bernoulli(p), and the score in u-space of the pair is
    merged by its symmetry. A unit is a pair: 2 evaluations of f a sample, whatever the number of
    coordinates.

    Source: Yin & Zhou 2019, arXiv 1807.11143, theorem 1.

    Examples:
        >>> ARM().higher_order
        False
    """

    def pair(self, theta: Tensor, u: Tensor) -> WeightedPair:
        """Samples b = 1[u > 1 − p], b' = 1[u < p], w = u − ½."""
        p = theta.sigmoid()
        return WeightedPair((u > 1 - p).to(theta.dtype), (u < p).to(theta.dtype), u - 0.5)

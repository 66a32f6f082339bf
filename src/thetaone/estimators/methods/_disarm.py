"""DisARM, also known as U2G: ARM with its noise integrated out."""

from torch import Tensor

from thetaone.estimators.methods._bernoulli import BernoulliPair, WeightedPair


class DisARM(BernoulliPair):
    """ĝ = ½(f(b) − f(b̃)) (−1)^{b̃} 1[b ≠ b̃] σ(|θ|), b = 1[1 − u < p], b̃ = 1[u < p].

    Unbiased for any f: it is the conditional mean of ARM given the pair (b, b̃), so its variance is
    never larger. A unit is a pair: 2 evaluations of f a sample, whatever the number of coordinates.

    Source: Dong, Mnih & Tucker 2020, arXiv 2006.10680, eq. 7; Yin et al. 2020, arXiv 2002.03936.

    Examples:
        >>> DisARM().unbiased
        True
    """

    def pair(self, theta: Tensor, u: Tensor) -> WeightedPair:
        """Samples b and b̃ as above, w = ½ (b − b̃) σ(|θ|), since (−1)^b̃ · 1[b ≠ b̃] = b − b̃."""
        p = theta.sigmoid()
        b, mirrored = (1 - u < p).to(theta.dtype), (u < p).to(theta.dtype)
        return WeightedPair(b, mirrored, (b - mirrored) * theta.abs().sigmoid() / 2)

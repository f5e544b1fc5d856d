"""How far off a statistic may be: 95 % intervals, of what other images of the same kind would have given."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_Z = 1.959964  # of the normal distribution, for 95 %

Interval = tuple[float, float]


def jackknife_variance(value: float, without: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    """Return the variance of a statistic, from what it would be without each of some groups.

    Busing, Meijer and Van der Leeden, *Delete-m Jackknife for Unequal m*, Statistics and Computing 9 (1999).

    :param without: the statistic without each group: float64 [groups].
    :param sizes: how many observations each has, at least one: float64 [groups].
    :returns: 0 where there is only one group, of which nothing can be told.
    """
    if len(sizes) < 2:
        return 0.0
    shares = sizes.sum() / sizes
    estimate = len(sizes) * value - ((1 - 1 / shares) * without).sum()
    pseudo = shares * value - (shares - 1) * without
    return float(((pseudo - estimate) ** 2 / (shares - 1)).mean())


def logit_interval(value: float, variance: float, groups: int, observations: float) -> Interval:
    """Return the interval of a statistic in [0, 1], symmetric on the scale of its log odds.

    At 0, at 1, and where nothing varies, there is no such scale: the interval is then Wilson's.

    :param groups: of which the variance was found; a t-distribution has one degree of freedom less.
    :param observations: independent ones, such as images.
    """
    if not 0 < value < 1 or variance == 0:
        return wilson_interval(value, observations)
    logit = math.log(value / (1 - value))
    reach = _t(groups - 1) * math.sqrt(variance) / (value * (1 - value))
    return _logistic(logit - reach), _logistic(logit + reach)


def wilson_interval(share: float, observations: float) -> Interval:
    """Return the interval of a share of some independent observations.

    Wilson, *Probable Inference, the Law of Succession, and Statistical Inference*, JASA 22 (1927).
    """
    spread = _Z**2 / observations
    middle = share + spread / 2
    reach = _Z * math.sqrt(share * (1 - share) / observations + (spread / (2 * _Z)) ** 2)
    return max(0.0, (middle - reach) / (1 + spread)), min(1.0, (middle + reach) / (1 + spread))


def _logistic(odds: float) -> float:
    return 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0


def _t(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t-distribution, to 1 % from three degrees of freedom on.

    Abramowitz and Stegun, *Handbook of Mathematical Functions*, 26.7.5.
    """
    z = _Z
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return math.fsum(term / freedom**power for power, term in enumerate(terms))

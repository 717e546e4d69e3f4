"""Bradley-Terry scores of paired comparisons with ties, by Davidson's model.

Notation (Davidson 1970, "On Extending the Bradley-Terry Model to Accommodate Ties", JASA 65): worth of option i
pi_i = exp(s_i), nu >= 0 how often options of equal worth tie:

    P(i over j) = pi_i / D,  P(tie) = nu sqrt(pi_i pi_j) / D,  D = pi_i + pi_j + nu sqrt(pi_i pi_j)

Ties are modelled and not halved: half a win for each would make a pair that always ties look as certain as one that is
decided evenly. A Gaussian prior on s keeps the score of an option that won every time finite (Caron & Doucet 2012 give
the same effect by a Gamma prior). The log-posterior is concave, so Newton's method finds its only maximum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from difix3d.types import require_shape

PRIOR_SD = 2.0
"""Of a score, in logits: an option is rarely preferred to the average more than 98 times in 100."""
_TIE_PRIOR_SD = 3.0
_STEPS = 100


@dataclass(frozen=True)
class BradleyTerry:
    """scores: [N] s of each option, mean 0; log_nu: of ties; covariance: [N, N] of the scores about their mean (the
    inverse of the observed information)."""

    scores: NDArray[np.float64]
    log_nu: float
    covariance: NDArray[np.float64]

    def probabilities(self, i: int, j: int) -> tuple[float, float, float]:
        """Of (i preferred, j preferred, tie)."""
        over, under, tie = _probabilities(self.scores[i] - self.scores[j], self.log_nu)
        return float(over), float(under), float(tie)

    def gains(self) -> NDArray[np.float64]:
        """[N, N] what one more comparison of i and j tells: log(1 + I v), the growth of the log-determinant of the
        information (D-optimality), I of one comparison on s_i - s_j, v the variance of that difference."""
        variances = np.diag(self.covariance)
        v = variances[:, None] + variances[None, :] - 2 * self.covariance
        over, under, _ = _probabilities(self.scores[:, None] - self.scores[None, :], self.log_nu)
        information = (over + under) / 4 - (over - under) ** 2 / 4
        return np.log1p(np.maximum(information * v, 0.0))


def fit_bradley_terry(
    wins: NDArray[np.floating],
    ties: NDArray[np.floating],
    prior_sd: float = PRIOR_SD,
    start: BradleyTerry | None = None,
) -> BradleyTerry:
    """wins: [N, N] how often i was preferred to j; ties: [N, N] symmetric, how often i and j tied; start: of votes that
    are nearly the same, which saves steps and changes nothing else."""
    count = len(wins)
    require_shape("wins", wins, (count, count))
    require_shape("ties", ties, (count, count))
    first, second = np.triu_indices(count, k=1)
    met = (wins[first, second] + wins[second, first] + ties[first, second]) > 0
    first, second = first[met], second[met]
    seen = np.stack([wins[first, second], wins[second, first], ties[first, second]])  # [3, pairs]
    totals = seen.sum(axis=0)
    precision = np.full(count + 1, prior_sd**-2)
    precision[-1] = 0.0 if np.isinf(prior_sd) else _TIE_PRIOR_SD**-2
    # What an outcome says of (s_first, s_second, log nu): the exponents of its term above D.
    exponents = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 1.0]])
    where = np.stack([first, second, np.full(len(first), count)])  # [3, pairs]

    parameters: NDArray[np.float64] = np.zeros(count + 1)
    if start is not None:
        parameters[:] = (*start.scores, start.log_nu)
    elif len(first) == 0 or not ties.any():
        parameters[-1] = -3.0
    value = -np.inf
    step = np.zeros(count + 1)
    for _ in range(_STEPS):
        p = np.stack(_probabilities(parameters[first] - parameters[second], parameters[-1]))
        new_value = float((seen * np.log(np.maximum(p, 1e-300))).sum() - (precision * parameters**2).sum() / 2)
        if new_value < value - 1e-12:  # too far: half as far
            step /= 2
            parameters -= step
            continue
        converged = new_value - value < 1e-12
        value = new_value
        gradient = -precision * parameters
        hessian = np.diag(precision)
        residual = exponents.T @ (seen - totals * p)  # [3, pairs]
        np.add.at(gradient, where, residual)
        mean = exponents.T @ p
        for row in range(3):
            for column in range(3):
                spread = (p * exponents[:, row, None] * exponents[:, column, None]).sum(axis=0)
                np.add.at(hessian, (where[row], where[column]), totals * (spread - mean[row] * mean[column]))
        if converged:
            break
        step = np.asarray(np.linalg.lstsq(hessian, gradient, rcond=1e-12)[0], dtype=np.float64)
        parameters = parameters + step
    about_mean = np.eye(count) - 1 / count
    covariance = about_mean @ np.linalg.pinv(hessian, rcond=1e-12, hermitian=True)[:count, :count] @ about_mean
    return BradleyTerry(parameters[:count] - parameters[:count].mean(), float(parameters[-1]), covariance)


def _probabilities(difference: NDArray[np.float64] | float, log_nu: float) -> tuple[NDArray[np.float64], ...]:
    logits = np.stack([np.asarray(difference) / 2, -np.asarray(difference) / 2, np.full(np.shape(difference), log_nu)])
    weights = np.exp(logits - logits.max(axis=0))
    return tuple(weights / weights.sum(axis=0))

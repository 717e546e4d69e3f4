"""Scores of paired comparisons against a published analysis, and against votes drawn from the model."""

from __future__ import annotations

import numpy as np
import pytest

from difix3d.ratings.bradley_terry import fit_bradley_terry

# Davidson (1970), six brands of chocolate pudding: i, j, times compared, i preferred, j preferred, no preference.
PUDDING = """
1 2 57 19 22 16   1 3 47 16 19 12   2 3 48 19 19 10   1 4 54 18 23 13   2 4 51 23 19 9
3 4 54 19 20 15   1 5 50 13 19 18   2 5 48 16 20 12   3 5 48 16 15 17   4 5 47 17 14 16
1 6 51 18 21 12   2 6 54 22 20 12   3 6 41 13 18 10   4 6 51 14 19 18   5 6 44 11 21 12
"""
# Worth of the brands and tie parameter, as R's PlackettLuce prints them for these data (its vignette, section 2.3).
WORTH = (0.1388005, 0.1729985, 0.1617420, 0.1653930, 0.1586805, 0.2023855)
NU = 0.7468147


def pudding() -> tuple[np.ndarray, np.ndarray]:
    wins, ties = np.zeros((6, 6)), np.zeros((6, 6))
    for i, j, total, w_ij, w_ji, t_ij in np.array(PUDDING.split(), int).reshape(-1, 6):
        assert total == w_ij + w_ji + t_ij
        wins[i - 1, j - 1], wins[j - 1, i - 1] = w_ij, w_ji
        ties[i - 1, j - 1] = ties[j - 1, i - 1] = t_ij
    return wins, ties


def test_it_gives_what_was_published_for_davidsons_puddings() -> None:
    fitted = fit_bradley_terry(*pudding(), prior_sd=np.inf)
    worth = np.exp(fitted.scores)
    assert worth / worth.sum() == pytest.approx(WORTH, abs=5e-5)  # it stops earlier than Newton does
    assert np.exp(fitted.log_nu) == pytest.approx(NU, abs=5e-4)


def test_intervals_cover_the_true_scores_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    truth = np.array([1.2, 0.4, 0.0, -0.5, -1.1])
    covered = []
    for _ in range(150):
        wins, ties = np.zeros((5, 5)), np.zeros((5, 5))
        for i in range(5):
            for j in range(i):
                weights = np.exp([truth[i], truth[j], (truth[i] + truth[j]) / 2 - 0.5])
                won, lost, tied = rng.multinomial(40, weights / weights.sum())
                wins[i, j], wins[j, i] = won, lost
                ties[i, j] = ties[j, i] = tied
        fitted = fit_bradley_terry(wins, ties, prior_sd=10.0)
        off = np.abs(fitted.scores - truth) / np.sqrt(np.diag(fitted.covariance))
        covered.append(off < 1.96)
    assert 0.92 < np.mean(covered) < 0.98


def test_an_option_that_always_wins_has_a_finite_score_and_options_that_never_met_are_most_uncertain() -> None:
    wins = np.zeros((4, 4))
    wins[0, 1] = 30
    wins[1, 2] = wins[2, 1] = 200
    fitted = fit_bradley_terry(wins, np.zeros((4, 4)))
    assert np.isfinite(fitted.scores).all() and 2 < fitted.scores[0] - fitted.scores[1] < 8
    gains = fitted.gains()
    assert gains[1, 2] == gains[np.triu_indices(4, 1)].min() and (gains[3, 1] > gains[1, 2])
    assert sum(fitted.probabilities(0, 1)) == pytest.approx(1.0)


def test_nothing_compared_yet_is_no_error() -> None:
    fitted = fit_bradley_terry(np.zeros((3, 3)), np.zeros((3, 3)))
    assert fitted.scores == pytest.approx([0, 0, 0]) and (fitted.gains()[0, 1:] > 0).all()

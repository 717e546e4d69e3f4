"""The U-Net with and without views mixed, against recorded values, and what mixing must not disturb."""

from __future__ import annotations

import pytest
import torch

from difix3d.errors import ShapeError

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def recorded(goldens):
    return goldens.expected("unet_alone")


@torch.no_grad()
def eps(goldens, model, recorded, rows, views, timestep) -> torch.Tensor:
    z = recorded["sample"][:rows]
    return goldens.pipeline(model).predict_noise(z, recorded["encoder_hidden_states"], views=views, timestep=timestep)


@pytest.mark.parametrize("timestep", [199, 999])
@pytest.mark.parametrize(
    ("model", "name", "rows", "views"),
    [
        ("difix", "plain_difix.t{}.eps", 4, 1),
        ("difix_ref", "mv_difix_ref.t{}.eps_2views", 2, 2),
        ("difix_ref", "mv_difix_ref.t{}.eps_2pairs", 4, 2),
    ],
)
def test_unet_alone(goldens, recorded, model, name, rows, views, timestep) -> None:
    found = eps(goldens, model, recorded, rows, views, timestep)
    torch.testing.assert_close(found, recorded[name.format(timestep)], rtol=0, atol=1e-5)


def test_one_view_through_ref_weights_is_plain_and_calls_leave_nothing_behind(goldens, recorded) -> None:
    eps(goldens, "difix_ref", recorded, 4, 2, 199)
    plain = eps(goldens, "difix_ref", recorded, 2, 1, 199)
    torch.testing.assert_close(plain, recorded["plain_difix_ref.t199.eps"], rtol=0, atol=1e-5)
    mixed = eps(goldens, "difix_ref", recorded, 2, 2, 199)
    assert (mixed - plain).abs().max() > 1e-3


def test_exchanging_views_exchanges_outputs_and_samples_do_not_mix(goldens, recorded) -> None:
    pipe = goldens.pipeline("difix_ref")
    z, c = recorded["sample"], recorded["encoder_hidden_states"]
    with torch.no_grad():
        for views in (2, 4):
            straight = pipe.predict_noise(z[:views], c, views=views)
            reversed_ = pipe.predict_noise(z[:views].flip(0), c, views=views).flip(0)
            torch.testing.assert_close(straight, reversed_, rtol=0, atol=2e-5)
        pairs = pipe.predict_noise(z, c, views=2)
        changed = torch.cat([z[:2], torch.randn_like(z[2:])])
        torch.testing.assert_close(pipe.predict_noise(changed, c, views=2)[:2], pairs[:2], rtol=0, atol=1e-5)


def test_three_views_run(goldens, recorded) -> None:
    found = eps(goldens, "difix_ref", recorded, 3, 3, 199)
    assert found.shape == (3, *recorded["sample"].shape[1:])
    assert torch.isfinite(found).all()


def test_rows_that_are_no_multiple_of_views_are_named(goldens, recorded) -> None:
    with pytest.raises(ShapeError, match="groups of 2 views, got 3"):
        eps(goldens, "difix_ref", recorded, 3, 2, 199)

"""A checkpoint that held-out photos like less than its parent's is held back, with the limit that it breaks."""

from __future__ import annotations

from difix3d.training.gate import Limits, judged, sentence


def validation(psnr: float, lpips: float | None) -> dict:
    parent = {"psnr": 20.0, "lpips": None if lpips is None else 0.3}
    return {"pairs": 8, "input": parent, "before": parent, "after": {"psnr": psnr, "lpips": lpips}}


def test_as_much_worse_as_allowed_passes() -> None:
    assert judged(validation(19.95, 0.304), Limits())["passed"] is True
    assert judged(validation(21.0, 0.2), Limits(0.0, 0.0))["passed"] is True


def test_each_limit_is_named_with_what_was_found() -> None:
    gate = judged(validation(19.7, 0.31), Limits())
    assert gate["passed"] is False and len(gate["problems"]) == 2
    told = sentence(gate, 8, "mine")
    assert told.startswith("mine is kept, but not offered among the fixers: at 8 photos")
    assert "PSNR fell by 0.30 dB (20.00 to 19.70), where 0.1 dB are allowed (--max-psnr-drop)" in told
    assert "LPIPS rose by 0.0100 (0.3000 to 0.3100), where 0.005 is allowed (--max-lpips-rise)" in told


def test_what_was_not_measured_is_not_judged() -> None:
    assert judged(None, Limits()) | {"limits": {}} == {"passed": None, "problems": [], "limits": {}}
    assert judged(validation(20.0, None), Limits())["passed"] is True

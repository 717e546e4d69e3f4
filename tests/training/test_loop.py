"""The loop: the loss falls, work can be shared out and interrupted, and what is asked for happens."""

from __future__ import annotations

import pytest
import torch

from difix3d.errors import CheckpointError, FixerError
from difix3d.training.loop import LoopSettings, Trainer

pytestmark = pytest.mark.shared


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.tensors()["weights"].items()}


def difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """The largest of any weight, relative to the largest weight of its tensor."""
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max() / ours[name].abs().max().clamp(min=1e-3)) for name in ours)


@pytest.mark.parametrize("model", ["difix", "difix_ref"])
def test_a_few_steps_lower_the_loss_and_a_seed_repeats(make_trainer, model) -> None:
    def losses() -> list[float]:
        trainer = make_trainer(model=model, steps=8, batch_size=2, seed=1, crop=48)
        return [result.loss for result in trainer.run()]

    first = losses()
    assert first[-1] < 0.9 * first[0], first
    assert first == losses()


@pytest.mark.parametrize("settings", [{}, {"unet_rank": 2}, {"ema_decay": 0.9, "accumulation": 2}])
def test_a_loaded_state_goes_on_to_the_same_bits(make_trainer, settings) -> None:
    whole = make_trainer(**settings)
    results = list(whole.run())

    stopped = make_trainer(**settings)
    steps = stopped.run()
    begun = [next(steps), next(steps)]
    saved = {kind: {name: value.clone() for name, value in of.items()} for kind, of in stopped.tensors().items()}
    steps.close()

    resumed = make_trainer(**settings)
    resumed.load(saved, 2)
    assert begun + list(resumed.run()) == results
    ours, theirs = resumed.tensors(), whole.tensors()
    assert ours.keys() == theirs.keys() >= {"weights", "adam"}
    for kind in theirs:
        assert ours[kind].keys() == theirs[kind].keys()
        assert all(torch.equal(ours[kind][name], theirs[kind][name]) for name in theirs[kind])


def test_a_state_of_other_weights_is_refused(make_trainer) -> None:
    with pytest.raises(CheckpointError, match="other weights"):
        make_trainer().load(make_trainer(unet_rank=2).tensors(), 1)


def test_accumulated_batches_are_one_large_one(make_trainer) -> None:
    large, small = make_trainer(batch_size=4), make_trainer(batch_size=2, accumulation=2)
    first, second = list(large.run()), list(small.run())
    assert [one.loss for one in first] == pytest.approx([two.loss for two in second], rel=1e-5)
    assert difference(weights(large), weights(small)) < 1e-5
    assert difference(weights(large), weights(make_trainer())) > 1e-3  # they moved


def test_the_rate_warms_up_to_what_was_asked_for(make_trainer) -> None:
    trainer = make_trainer(steps=4, warmup_steps=3, learning_rate=3e-3)
    assert [result.learning_rate for result in trainer.run()] == pytest.approx([1e-3, 2e-3, 3e-3, 3e-3])
    assert LoopSettings(steps=1, learning_rate=5.0).rate(1) == 5.0
    # AdamW's first step is as long as its rate, whatever the gradient.
    steps, before = [], None
    for warmup in (1, 10):
        trainer = make_trainer(steps=1, warmup_steps=warmup)
        before = weights(trainer)
        list(trainer.run())
        steps.append(max(float((value - before[name]).abs().max()) for name, value in weights(trainer).items()))
    assert steps[1] == pytest.approx(0.1 * steps[0], rel=0.05)


def test_the_average_lags_behind_and_is_there_when_asked_for(make_trainer) -> None:
    trainer = make_trainer(ema_decay=0.99)
    start = weights(trainer)
    list(trainer.run())
    last = weights(trainer)
    with trainer.averaged():
        average = weights(trainer)
    assert difference(last, weights(trainer)) == 0.0
    name = max(last, key=lambda name: float((last[name] - start[name]).abs().max()))
    assert 0 < (average[name] - start[name]).norm() < (last[name] - start[name]).norm()


def test_half_precision_trains_full_precision_weights(make_trainer) -> None:
    trainer = make_trainer(precision="bf16", steps=8, batch_size=2, crop=48)
    losses = [result.loss for result in trainer.run()]
    assert losses[-1] < 0.95 * losses[0]
    full = make_trainer(steps=1, batch_size=2, crop=48)
    loss = next(full.run()).loss
    assert losses[0] == pytest.approx(loss, rel=0.05) and losses[0] != loss
    assert {value.dtype for value in weights(trainer).values()} == {torch.float32}


def test_gradients_are_cut_before_the_step(make_trainer) -> None:
    trainer = make_trainer(steps=1, gradient_norm=1e-3)
    assert next(trainer.run()).gradient_norm > 1e-3
    moments = [value for name, value in trainer.tensors()["adam"].items() if name.endswith("/exp_avg")]
    # AdamW's first moment is a tenth of the first gradient.
    assert torch.cat([moment.flatten() for moment in moments]).norm() == pytest.approx(1e-4, rel=1e-3)


def test_a_loss_that_is_no_number_ends_it_with_the_weights_of_before(make_trainer) -> None:
    trainer = make_trainer(learning_rate=1e18, steps=8)
    before = weights(trainer)
    with pytest.raises(FixerError, match=r"at step [1-8]: try a smaller learning rate"):
        for _ in trainer.run():
            before = weights(trainer)
    assert difference(before, weights(trainer)) == 0.0

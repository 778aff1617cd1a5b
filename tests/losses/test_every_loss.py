"""What holds for every loss: its oracle, its derivatives, any batch, and nothing that leaks, overflows or is hidden."""

import pytest
import torch
from oracles.loss_cases import CASES
from physique.testing import assert_right_to_second_order
from torch.testing import assert_close

EVERY = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
WEIGHTED = pytest.mark.parametrize("case", [c for c in CASES if c.weight], ids=lambda case: case.name)
BATCH = (2, 3)


def derivatives(case, values):
    """Return the loss, its gradient by each point, and the Hessian's product with the gradient."""
    leaves = {name: values[name].detach().clone().requires_grad_() for name in case.points}
    loss = case.loss(**{**values, **leaves})
    first = torch.autograd.grad(loss.sum(), list(leaves.values()), create_graph=True, materialize_grads=True)
    moved = sum((g * g.detach()).sum() for g in first)
    if not moved.requires_grad:
        return loss, first, first
    second = torch.autograd.grad(moved, list(leaves.values()), materialize_grads=True)
    return loss, first, second


def hide(case, values, hidden, filler=torch.nan):
    """Return the values with weight 0 where hidden, and `filler` in all points there."""
    result = {}
    for name, value in values.items():
        if name == case.weight:
            result[name] = torch.where(hidden, 0.0, value)
        elif name in case.points:
            where = hidden.reshape(*hidden.shape, *[1] * (value.dim() - hidden.dim()))
            result[name] = torch.where(where, filler, value)
        else:
            result[name] = value
    return result


@EVERY
def test_loss_equals_its_oracle(case):
    values = case.draw(BATCH)
    assert_close(case.loss(**values), case.expected(values, BATCH), rtol=1e-11, atol=1e-12)


@WEIGHTED
def test_with_hidden_entries_too(case):
    values = case.draw(BATCH)
    hidden = torch.rand(values[case.weight].shape, generator=torch.Generator().manual_seed(1)) < 0.3
    values = hide(case, values, hidden)
    assert_close(case.loss(**values), case.expected(values, BATCH), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
@EVERY
def test_any_batch_is_its_samples(case, batch):
    values = case.draw(batch)
    loss = case.loss(**values)
    assert loss.shape == batch and loss.dtype == torch.float64
    if loss.numel():
        alone = case.loss(**{name: value[(0,) * len(batch)] for name, value in values.items()})
        assert_close(loss[(0,) * len(batch)], alone)


@EVERY
def test_inputs_broadcast(case):
    values = case.draw((3,))
    for shared in values:
        mixed = {name: value[0] if name == shared else value for name, value in values.items()}
        full = {name: value[0].expand_as(value) if name == shared else value for name, value in values.items()}
        if len(values) > 1:
            assert_close(case.loss(**mixed), case.loss(**full))
    stretched = {name: value[:, None] if i % 2 else value[None] for i, (name, value) in enumerate(values.items())}
    if len(values) > 1:
        assert case.loss(**stretched).shape == (3, 3)


@EVERY
def test_loss_is_right_to_second_order(case):
    values = case.draw((2,), seed=3)

    def loss(*leaves):
        return case.loss(**{**values, **dict(zip(case.points, leaves, strict=True))})

    tolerance = {"rtol": 1e-5, "atol": 1e-7} if case.step == 1e-3 else {"rtol": 1e-4, "atol": 1e-5}
    assert_right_to_second_order(loss, *(values[name] for name in case.points), step=case.step, **tolerance)


SMOOTH = [c for c in CASES if c.target and not c.name.endswith(("l1", "geodesic"))]


@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.name)
def test_all_but_l1_and_the_angle_are_right_to_second_order_at_coincidence(case):
    values = case.draw((2,), seed=3)

    def loss(points):
        return case.loss(**{**values, case.points[0]: points})

    tolerance = {"rtol": 1e-5, "atol": 1e-7} if case.step == 1e-3 else {"rtol": 1e-4, "atol": 1e-5}
    assert_right_to_second_order(loss, values[case.target].clone(), step=case.step, **tolerance)


@EVERY
def test_zeros_are_finite(case):
    values = {
        name: value if name == case.weight else torch.zeros_like(value) for name, value in case.draw((2,)).items()
    }
    assert all(t.isfinite().all() for part in derivatives(case, values) for t in part)


@pytest.mark.parametrize("case", [c for c in CASES if c.target], ids=lambda case: case.name)
def test_coincident_points_cost_nothing_and_pull_nowhere(case):
    values = case.draw((2,))
    values[case.points[0]] = values[case.target].clone()
    loss, first, second = derivatives(case, values)
    assert_close(loss, torch.zeros_like(loss), rtol=0, atol=1e-7)
    assert_close(first[0], torch.zeros_like(first[0]), rtol=0, atol=1e-7)
    assert all(t.isfinite().all() for t in second)


@WEIGHTED
def test_hidden_entries_have_no_say_even_as_nan(case):
    values = case.draw(BATCH)
    hidden = torch.rand(values[case.weight].shape, generator=torch.Generator().manual_seed(1)) < 0.3
    results = [derivatives(case, hide(case, values, hidden, filler)) for filler in (0.0, 7.0, torch.nan, torch.inf)]
    for loss, first, second in results:
        assert_close(loss, results[0][0])
        for name, gradient, reference in zip(case.points, first, results[0][1], strict=True):
            assert_close(gradient, reference)
            assert (gradient[hidden] == 0).all(), name
        assert all(t.isfinite().all() for t in second)


@WEIGHTED
def test_nothing_visible_is_zero_with_zero_gradient(case):
    values = case.draw(BATCH)
    values = hide(case, values, torch.ones_like(values[case.weight], dtype=torch.bool))
    loss, first, second = derivatives(case, values)
    assert (loss == 0).all() and all((t == 0).all() for t in (*first, *second))


@WEIGHTED
def test_bad_weights_count_as_none_and_masks_as_weights(case):
    values = case.draw((2,))
    weight = values[case.weight]
    hidden = torch.zeros_like(weight, dtype=torch.bool)
    hidden.flatten(1)[:, ::2] = True
    expected = case.loss(**{**values, case.weight: torch.where(hidden, 0.0, weight)})
    for bad in (torch.nan, -1.0, -torch.inf, torch.inf, 1e-320):
        assert_close(case.loss(**{**values, case.weight: torch.where(hidden, bad, weight)}), expected)
    as_mask = case.loss(**{**values, case.weight: ~hidden})
    assert_close(as_mask, case.loss(**{**values, case.weight: (~hidden).double()}))


@WEIGHTED
def test_a_common_factor_of_the_weights_changes_nothing(case):
    values = case.draw((2,))
    expected = case.loss(**values)
    for factor in (1e-300, 1e-6, 1e300):
        assert_close(case.loss(**{**values, case.weight: factor * values[case.weight]}), expected)


@EVERY
def test_nan_that_is_seen_is_not_hidden(case):
    values = case.draw((2,))
    broken = values[case.points[0]].clone()
    broken[0] = torch.nan
    loss = case.loss(**{**values, case.points[0]: broken})
    assert loss[0].isnan() and loss[1].isfinite()


@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e-15, 1e-9, 1e9, 1e15, 1e20, 1e30])
@EVERY
def test_float32_extremes_are_finite(case, size):
    values = {name: value.float() for name, value in case.draw((4,)).items()}
    for name in case.points:
        if name != case.weight:
            values[name] = size * values[name]
    loss, first, _ = derivatives(case, values)
    assert loss.dtype == torch.float32 and loss.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in first)


@pytest.mark.parametrize("name", ["predicted", "projected", "body_pose", "joints", "depth", "segment_scale", "matrix"])
def test_float32_agrees_with_float64(name):
    for case in CASES:
        if case.points[0] == name:
            values = case.draw((4,))
            single = case.loss(**{key: value.float() for key, value in values.items()})
            assert_close(single.double(), case.loss(**values), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", [c for c in CASES if "silhouette" not in c.name], ids=lambda case: case.name)
def test_loss_stays_on_the_device_of_its_inputs(case):
    """The meta device refuses to mix with any other."""
    values = {name: value.to("meta") for name, value in case.draw((2,)).items()}
    assert case.loss(**values).device.type == "meta"

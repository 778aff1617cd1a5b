"""Every loss and metric under torch.compile, vmap, jacfwd and jacrev."""

import pytest
import torch
from oracles.loss_cases import CASES, SILHOUETTE
from physique.losses import metrics
from torch.func import jacfwd, jacrev, vmap
from torch.testing import assert_close

LOSSES = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def joints(batch=(3,)):
    return 0.2 * torch.randn(2, *batch, 17, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


METRICS = {
    "mpjpe": lambda p, t: metrics.mpjpe(p, t, protocol="h36m_p1"),
    "absolute": lambda p, t: metrics.mpjpe(p, t, protocol=metrics.Protocol(alignment="none")),
    "pa_mpjpe": lambda p, t: metrics.pa_mpjpe(p, t, protocol="3dpw"),
    "masked": lambda p, t: metrics.pa_mpjpe(p, t, p.new_ones(17)),
    "rigid": lambda p, t: metrics.mpjpe(p, t, protocol=metrics.Protocol(alignment="rigid")),
    "scale": lambda p, t: metrics.scale_aligned_mpjpe(p, t),
    "bones": lambda p, t: metrics.scale_aligned_mpjpe(p, t, [(0, 1), (1, 2)]),
    "pve": metrics.pve,
    "pck": metrics.pck,
    "auc": metrics.auc,
    "joint_errors": metrics.joint_errors,
    "acceleration": lambda p, t: metrics.acceleration_error(p.unsqueeze(-2), t.unsqueeze(-2)),
    "pixels": lambda p, t: metrics.per_pixel_error(p[..., :2], t[..., :2]),
    "oks": lambda p, t: metrics.oks(100 * p[..., :2], 100 * t[..., :2], None, 1e3),
    "gps": lambda p, t: metrics.gps((p - t)[..., 0]),
    "segmentation": lambda p, t: metrics.segmentation_scores((9 * p).long(), (9 * t).long(), 3)[:2],
}
EVERY_METRIC = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


def compiled(function):
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend="eager")


@LOSSES
def test_loss_compiles_in_one_graph(case):
    values = case.draw((3,))
    assert_close(compiled(case.loss)(**values), case.loss(**values))


@LOSSES
def test_vmapped_loss_is_the_batch(case):
    values = case.draw((3,))
    got = vmap(lambda *leaves: case.loss(**dict(zip(values, leaves, strict=True))))(*values.values())
    assert_close(got, case.loss(**values))


@LOSSES
def test_forward_and_reverse_jacobians_of_losses_agree(case):
    values = case.draw((2,))

    def loss(points):
        return case.loss(**{**values, case.points[0]: points})

    points = values[case.points[0]]
    assert_close(jacfwd(loss)(points), jacrev(loss)(points))


def test_gradient_of_a_compiled_loss_is_the_same():
    def loss(case, values, step):
        leaf = values[case.points[0]].clone().requires_grad_()
        return torch.autograd.grad(step(**{**values, case.points[0]: leaf}).sum(), leaf)[0]

    for case in CASES:
        values = case.draw((2,))
        assert_close(loss(case, values, compiled(case.loss)), loss(case, values, case.loss))


def test_silhouette_flows_through_vmap_as_an_argument():
    from physique.losses import silhouette_loss

    points = 12 * torch.rand(3, 9, 2, dtype=torch.float64)
    shared = vmap(silhouette_loss, in_dims=(0, None))(points, SILHOUETTE)
    assert_close(shared, silhouette_loss(points, SILHOUETTE))


@EVERY_METRIC
def test_metric_compiles_in_one_graph(metric):
    assert_close(compiled(metric)(*joints()), metric(*joints()))


@EVERY_METRIC
def test_vmapped_metric_is_the_batch(metric):
    assert_close(vmap(metric)(*joints()), metric(*joints()))


@pytest.mark.parametrize("name", ["mpjpe", "pa_mpjpe", "masked", "scale", "bones", "acceleration", "oks"])
def test_forward_and_reverse_jacobians_of_metrics_agree(name):
    predicted, target = joints((2,))
    metric = METRICS[name]
    assert_close(jacfwd(metric)(predicted, target), jacrev(metric)(predicted, target))

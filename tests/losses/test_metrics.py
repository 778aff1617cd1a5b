"""Metrics against loops, under every protocol, with masks that hide NaN and answers that say when there is none."""

import math

import numpy as np
import pytest
import torch
from oracles import metrics as oracle
from physique.bodymodel import keypoint_set
from physique.losses.metrics import (
    Protocol,
    acceleration_error,
    auc,
    densepose_kappa,
    gps,
    joint_errors,
    mpjpe,
    oks,
    pa_mpjpe,
    pck,
    per_pixel_error,
    protocol,
    pve,
    scale_aligned_mpjpe,
    scores_from_confusion,
    segmentation_scores,
)
from physique.testing import assert_right_to_second_order
from refusals import refuses
from torch.testing import assert_close

DOUBLE = torch.float64
BATCHES = [(), (1,), (2, 3), (0,)]
BONES = keypoint_set("h36m17").bones
PROTOCOLS = {
    "default": Protocol(),
    "absolute": Protocol(alignment="none"),
    "two roots": Protocol(root=(1, 4)),
    "subset": Protocol(joints=(16, 3, 2, 9)),
    "scale": Protocol(alignment="scale"),
    "rigid": Protocol(alignment="rigid"),
    "procrustes": Protocol(alignment="procrustes"),
    "procrustes of a subset": Protocol(joints=(1, 2, 5, 7, 11), alignment="procrustes"),
    "h36m_p1": protocol("h36m_p1"),
    "h36m_p2": protocol("h36m_p2"),
    "3dpw": protocol("3dpw"),
}
EVERY_PROTOCOL = pytest.mark.parametrize("rule", PROTOCOLS.values(), ids=PROTOCOLS)


def people(batch, count=17, dtype=DOUBLE):
    target = 0.4 * torch.randn(*batch, count, 3, dtype=dtype)
    return target + 0.1 * torch.randn(*batch, count, 3, dtype=dtype), target


def masks(batch, count=17):
    mask = torch.rand(*batch, count) > 0.3
    mask[..., :4] = True
    return mask


def each(batch, function, *values):
    """Return function of each sample's arrays as a tensor of the batch."""
    flat = [value.reshape(-1, *value.shape[len(batch) :]).numpy() for value in values]
    results = torch.tensor([function(*sample) for sample in zip(*flat, strict=True)], dtype=DOUBLE)
    return results.reshape(*batch, *results.shape[1:])


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@EVERY_PROTOCOL
def test_joint_metrics_equal_their_oracles(rule, masked):
    batch = (2, 3)
    predicted, target = people(batch)
    mask = masks(batch) if masked else torch.ones(*batch, 17, dtype=torch.bool)
    broken = torch.where(mask[..., None], target, torch.nan)

    def errors(p, t, m):
        return oracle.joint_errors(p, t, m, rule.root, rule.joints, rule.alignment)

    sample = (predicted, target, mask)
    thresholds = np.linspace(0, 0.15, 31)
    for got, expected in (
        (mpjpe(predicted, broken, mask, protocol=rule), lambda *s: oracle.average(errors(*s))),
        (pck(predicted, broken, mask, protocol=rule), lambda *s: oracle.pck(errors(*s), 0.15)),
        (pck(predicted, broken, mask, threshold=0.05, protocol=rule), lambda *s: oracle.pck(errors(*s), 0.05)),
        (auc(predicted, broken, mask, protocol=rule), lambda *s: oracle.auc(errors(*s), thresholds)),
    ):
        assert_close(got, each(batch, expected, *sample), rtol=1e-9, atol=1e-9)
    joints = range(17) if rule.joints is None else rule.joints
    expected = each(batch, lambda *s: [errors(*s).get(k, math.nan) for k in joints], *sample)
    assert_close(joint_errors(predicted, broken, mask, protocol=rule), expected, rtol=1e-9, atol=1e-9, equal_nan=True)


def test_pa_mpjpe_replaces_the_alignment_only():
    predicted, target = people((4,))
    rule = protocol("3dpw")

    def expected(p, t):
        return oracle.average(oracle.joint_errors(p, t, None, rule.root, rule.joints, "procrustes"))

    assert_close(pa_mpjpe(predicted, target, protocol="3dpw"), each((4,), expected, predicted, target))
    assert_close(pa_mpjpe(predicted, target), mpjpe(predicted, target, protocol="h36m_p2"))


@pytest.mark.parametrize("length", [None, 4.2])
def test_scale_alignment_by_bone_lengths_equals_its_oracle(length):
    predicted, target = people((2, 3))
    mask = masks((2, 3))
    broken = torch.where(mask[..., None], target, torch.nan)

    def expected(p, t, m):
        return oracle.scale_aligned(p, t, BONES, m, length)

    got = scale_aligned_mpjpe(predicted, broken, BONES, mask, length=length)
    assert_close(got, each((2, 3), expected, predicted, target, mask))
    assert_close(scale_aligned_mpjpe(predicted, target), mpjpe(predicted, target, protocol=PROTOCOLS["scale"]))


def test_length_may_differ_from_sample_to_sample():
    predicted, target = people((3,))
    length = torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE)
    got = scale_aligned_mpjpe(predicted, target, BONES, length=length)
    for i in range(3):
        assert_close(got[i], scale_aligned_mpjpe(predicted[i], target[i], BONES, length=float(length[i])))


@pytest.mark.parametrize("alignment", ["none", "root", "scale", "rigid", "procrustes"])
def test_vertex_error_equals_its_oracle(alignment):
    predicted, target = people((2, 3), 40)
    mask = masks((2, 3), 40)
    roots = (predicted[..., 5, :], target[..., 5, :])
    shifted = [
        torch.cat((root.unsqueeze(-2), points), -2) for root, points in zip(roots, (predicted, target), strict=True)
    ]

    def expected(p, t, m):
        """Joint 0 is the root, which does not count."""
        errors = oracle.joint_errors(p, t, [1, *m], (0,), range(1, 41), alignment)
        return oracle.average(errors)

    broken = torch.where(mask[..., None], target, torch.nan)
    got = pve(predicted, broken, mask, roots=roots, alignment=alignment)
    assert_close(got, each((2, 3), expected, *shifted, mask))


def test_acceleration_error_equals_its_oracle():
    predicted, target = people((2, 3, 6))
    mask = torch.rand(2, 3, 6, 17) > 0.1
    broken = torch.where(mask[..., None], target, torch.nan)
    got = acceleration_error(predicted, broken, mask)
    assert_close(got, each((2, 3), oracle.acceleration, predicted, target, mask))
    assert acceleration_error(predicted[..., :2, :, :], target[..., :2, :, :]).isnan().all()


def test_per_pixel_error_is_the_mean_distance():
    predicted, target = 100 * torch.randn(2, 4, 50, 2, dtype=DOUBLE)
    assert_close(per_pixel_error(predicted, target), (predicted - target).norm(dim=-1).mean(-1))
    mask = masks((4,), 50)
    broken = torch.where(mask[..., None], predicted, torch.nan)
    expected = torch.stack([(p - t)[m].norm(dim=-1).mean() for p, t, m in zip(predicted, target, mask, strict=True)])
    assert_close(per_pixel_error(broken, target, mask), expected)


def test_keypoint_similarity_is_cocos():
    predicted, target = 30 * torch.randn(2, 2, 3, 17, 2, dtype=DOUBLE)
    mask, area = masks((2, 3)), 1e3 + 1e4 * torch.rand(2, 3, dtype=DOUBLE)
    broken = torch.where(mask[..., None], target, torch.nan)
    sigmas = keypoint_set("coco17").sigmas
    assert_close(
        oks(predicted, broken, mask, area),
        each((2, 3), lambda p, t, m, a: oracle.oks(p, t, m, a, sigmas), predicted, target, mask, area),
    )
    assert_close(oks(predicted, target, None, area, sigmas=sigmas), oks(predicted, target, None, area))


def test_point_similarity_is_denseposes():
    distances, parts = torch.rand(2, 3, 30, dtype=DOUBLE), torch.randint(1, 25, (2, 3, 30))
    kappa = densepose_kappa(parts, dtype=DOUBLE)
    assert_close(gps(distances, kappa=kappa), each((2, 3), oracle.gps, distances, kappa))
    assert_close(gps(distances), each((2, 3), oracle.gps, distances, torch.full_like(kappa, 0.255)))
    mask = masks((2, 3), 30)
    assert_close(gps(torch.where(mask, distances, torch.nan), mask)[0, 0], gps(distances[0, 0][mask[0, 0]]))
    assert gps(torch.full((5,), torch.inf)) == 0


def test_kappa_is_of_the_coarse_part():
    head, torso, hand, foot = densepose_kappa(torch.tensor([24, 2, 3, 6]), dtype=DOUBLE).tolist()
    assert (head, torso, hand, foot) == (0.150, 0.351, 0.107, 0.126)


@pytest.mark.parametrize("batch", BATCHES)
def test_segmentation_equals_its_oracle(batch):
    classes = 7
    predicted, target = torch.randint(0, classes, (2, *batch, 6, 5))
    predicted[..., 0, 0], target[..., 1, :] = 9, 255
    got = segmentation_scores(predicted, target, classes)
    assert got.accuracy.shape == got.f1.shape == batch and got.confusion.shape == (*batch, classes, classes + 1)
    pairs = zip(*(x.reshape(-1, 6, 5).numpy() for x in (predicted, target)), strict=True)
    for i, (p, t) in enumerate(pairs):
        accuracy, f1 = oracle.segmentation(p, t, classes)
        assert got.accuracy.reshape(-1)[i].item() == pytest.approx(accuracy)
        found = got.class_f1.reshape(-1, classes)[i].tolist()
        assert found == pytest.approx([math.nan if f is None else f for f in f1], nan_ok=True)
        occur = [f for f in f1 if f is not None]
        assert got.f1.reshape(-1)[i].item() == pytest.approx(sum(occur) / len(occur))


def test_confusion_adds_up_over_a_data_set():
    predicted, target = torch.randint(0, 3, (2, 8, 6, 5))
    confusion = segmentation_scores(predicted, target, 3).confusion
    together = segmentation_scores(predicted.flatten(0, 1), target.flatten(0, 1), 3)
    for got, expected in zip(scores_from_confusion(confusion.sum(0)), together, strict=True):
        assert_close(got, expected)


def test_image_without_labels_has_no_scores():
    scores = segmentation_scores(torch.zeros(4, 4, dtype=torch.long), torch.full((4, 4), 255), 2)
    assert scores.accuracy.isnan() and scores.f1.isnan() and scores.class_f1.isnan().all()


def everything(predicted, target, mask=None):
    """Return every metric of (*B, 17, 3) joints, each (*B,)."""
    frames = [each.unsqueeze(-3).expand(*each.shape[:-2], 3, 17, 3) for each in (predicted, target)]
    still = None if mask is None else mask.unsqueeze(-2).expand(*mask.shape[:-1], 3, 17)
    return {
        "mpjpe": mpjpe(predicted, target, mask),
        "rigid": mpjpe(predicted, target, mask, protocol=PROTOCOLS["rigid"]),
        "pa_mpjpe": pa_mpjpe(predicted, target, mask),
        "scale": scale_aligned_mpjpe(predicted, target, None, mask),
        "bones": scale_aligned_mpjpe(predicted, target, BONES, mask),
        "pve": pve(predicted, target, mask),
        "pck": pck(predicted, target, mask),
        "auc": auc(predicted, target, mask),
        "acceleration": acceleration_error(*frames, still),
        "pixels": per_pixel_error(predicted[..., :2], target[..., :2], mask),
        "oks": oks(predicted[..., :2], target[..., :2], mask, 100.0),
        "gps": gps(predicted[..., 0] - target[..., 0], mask),
    }


@pytest.mark.parametrize("batch", BATCHES)
def test_any_batch_shape_and_broadcasting(batch):
    for name, value in everything(*people(batch), masks(batch)).items():
        assert value.shape == batch and value.dtype == DOUBLE, name
    for name, value in everything(people(batch)[0], people(())[1]).items():
        assert value.shape == batch, name


def test_nothing_visible_is_nan_and_only_there():
    mask = torch.tensor([[False], [True]]).expand(2, 17)
    predicted, target = people((2,))
    predicted[0], target[0] = torch.nan, torch.inf
    for name, value in everything(predicted, target, mask).items():
        assert value[0].isnan() and value[1].isfinite(), name


def test_without_its_root_a_rooted_metric_is_nan():
    predicted, target = people(())
    mask = torch.ones(17)
    mask[0] = 0
    assert mpjpe(predicted, target, mask).isnan() and pck(predicted, target, mask).isnan()
    assert joint_errors(predicted, target, mask).isnan().all()
    assert pa_mpjpe(predicted, target, mask).isfinite()


def test_metrics_stay_on_the_device_of_their_inputs():
    """The meta device refuses to mix with any other."""
    predicted, target = (each.to("meta") for each in people((2,)))
    for name, value in everything(predicted, target, masks((2,)).to("meta")).items():
        assert value.device.type == "meta", name
    labels = torch.zeros(4, 4, dtype=torch.long, device="meta")
    assert segmentation_scores(labels, labels, 3).f1.device.type == "meta"
    assert densepose_kappa(labels).device.type == "meta"


@pytest.mark.parametrize("size", [1e-30, 1e-9, 1e9, 1e20, 1e30])
def test_float32_extremes_are_finite(size):
    predicted, target = (size * each for each in people((3,), dtype=torch.float32))
    predicted.requires_grad_()
    values = everything(predicted, target)
    for name, value in values.items():
        assert value.isfinite().all(), name
        if value.requires_grad:
            assert torch.autograd.grad(value.sum(), predicted)[0].isfinite().all(), name
    if 1e-9 < size:
        scaled = pa_mpjpe(predicted / size, target / size) * size
        assert_close(values["pa_mpjpe"], scaled, rtol=1e-3, atol=0)


def test_degenerate_people_have_finite_errors_and_gradients():
    line = torch.linspace(0, 1, 17, dtype=DOUBLE)[:, None] * torch.ones(3, dtype=DOUBLE)
    for predicted in (torch.zeros(17, 3, dtype=DOUBLE), line):
        for target in (torch.zeros(17, 3, dtype=DOUBLE), line, people(())[1]):
            predicted = predicted.detach().requires_grad_()
            for name, value in everything(predicted, target).items():
                assert value.isfinite(), name
                if value.requires_grad:
                    assert torch.autograd.grad(value, predicted, retain_graph=True)[0].isfinite().all(), name


@pytest.mark.parametrize("name", ["default", "absolute", "scale", "rigid", "procrustes", "3dpw"])
def test_errors_are_right_to_second_order(name):
    predicted, target = torch.randn(2, 2, 17, 3, dtype=DOUBLE)
    assert_right_to_second_order(lambda p, t: mpjpe(p, t, protocol=PROTOCOLS[name]), predicted, target, step=1e-4)


def test_other_differentiable_metrics_are_right_to_second_order():
    predicted, target = torch.randn(2, 3, 17, 3, dtype=DOUBLE)
    assert_right_to_second_order(lambda p, t: scale_aligned_mpjpe(p, t, BONES), predicted, target, step=1e-4)
    assert_right_to_second_order(lambda p, t: acceleration_error(p, t)[None], predicted, target, step=1e-4)
    assert_right_to_second_order(lambda p: oks(p[..., :2], target[..., :2], None, 500.0), predicted)


def test_pck_is_strict_and_in_the_unit_of_its_threshold():
    target = torch.zeros(3, 3, dtype=DOUBLE)
    predicted = torch.tensor([[0.0, 0, 0], [0.15, 0, 0], [0, 0.1, 0]], dtype=DOUBLE)
    assert_close(pck(predicted, target).item(), 2 / 3)
    assert_close(pck(1000 * predicted, 1000 * target, threshold=150).item(), 2 / 3)
    thresholds = torch.linspace(0, 150, 31, dtype=DOUBLE)
    assert_close(auc(1000 * predicted, target, thresholds=thresholds), auc(predicted, target))


@pytest.mark.parametrize("name", ["h36m_p1", "h36m_p2", "3dpw", "mpi_inf_3dhp"])
def test_presets_name_what_they_say(name):
    rule = protocol(name)
    names = keypoint_set(rule.keypoint_set).names
    assert [names[k] for k in rule.root] == ["pelvis"]
    assert rule.alignment == ("procrustes" if name == "h36m_p2" else "root")
    rule = protocol(name, "lsp14")
    assert {keypoint_set("lsp14").names[k] for k in rule.root} == {"left_hip", "right_hip"}


def test_the_fourteen_joints_of_3dpw_are_lsps_in_order():
    rule = protocol("3dpw")
    names = [keypoint_set("h36m17").names[k] for k in rule.joints]
    assert names[:12] == list(keypoint_set("lsp14").names[:12]) and names[12:] == ["thorax", "head"]


def test_the_seventeen_joints_of_3dhp_are_those_of_its_test_set():
    rule = protocol("mpi_inf_3dhp")
    names = [keypoint_set("mpi_inf_3dhp28").names[k] for k in rule.joints]
    assert names[:2] == ["head_top", "neck"] and names[-3:] == ["pelvis", "spine", "head"]
    assert len(set(names)) == 17


def test_misuse_is_refused_by_name():
    predicted, target = torch.zeros(2, 17, 3), torch.zeros(2, 17, 3)
    for metric in (mpjpe, pa_mpjpe, pck, auc, joint_errors, scale_aligned_mpjpe):
        with refuses("predicted"):
            metric(torch.zeros(17, 2), target)
        with refuses("target"):
            metric(predicted, torch.zeros(2, 14, 3))
        with refuses("mask"):
            metric(predicted, target, mask=torch.ones(2, 14))
        with refuses("batch shapes"):
            metric(predicted, torch.zeros(3, 17, 3))
        with refuses("protocol"):
            metric(predicted, target, protocol="h36m_p3")
        with refuses("predicted"):
            metric(predicted, target, protocol=protocol("h36m_p1", "lsp14"))
        with refuses("protocol.joints"):
            metric(predicted, target, protocol=Protocol(joints=(17,)))
    for root in ((17,), ()):
        with refuses("root"):
            mpjpe(predicted, target, protocol=Protocol(root=root))
    with refuses("alignment"):
        mpjpe(predicted, target, protocol=Protocol(alignment="best"))
    with refuses("keypoint_set"):
        protocol("h36m_p1", "coco17")
    with refuses("thresholds"):
        auc(predicted, target, thresholds=torch.tensor(0.1))
    with refuses("bones"):
        scale_aligned_mpjpe(predicted, target, [(0, 17)])
    with refuses("roots"):
        pve(predicted, target, alignment="root")
    with refuses("roots"):
        pve(predicted, target, roots=(torch.zeros(2, 3), torch.zeros(2)), alignment="root")
    with refuses("alignment"):
        pve(predicted, target, alignment="best")
    with refuses("predicted"):
        acceleration_error(predicted[0], target[0])
    with refuses("mask"):
        acceleration_error(predicted, target, torch.ones(3, 17))
    with refuses("target"):
        per_pixel_error(predicted[..., :2], target)
    with refuses("sigmas"):
        oks(predicted[..., :2], target[..., :2], None, 1.0, sigmas="lsp14")
    with refuses("sigmas"):
        oks(predicted[..., :2], target[..., :2], None, 1.0, sigmas=torch.ones(16))
    with refuses("mask"):
        gps(torch.zeros(2, 5), torch.ones(4))
    with refuses("kappa"):
        gps(torch.zeros(2, 5), kappa=torch.ones(4))
    with refuses("target"):
        segmentation_scores(torch.zeros(4, 4, dtype=torch.long), torch.zeros(4, 5, dtype=torch.long), 2)
    with refuses("confusion"):
        scores_from_confusion(torch.zeros(3, 3, dtype=torch.long))

"""The silhouette losses: exact fields, points that come in, and masks that get covered."""

import pytest
import torch
from oracles.loss_cases import MASK
from oracles.losses import distance_field
from physique.bodymodel import BodyModel, open_body
from physique.cameras import WeakPerspectiveCamera
from physique.losses import Silhouette, silhouette_coverage_loss, silhouette_loss, silhouette_outside_loss
from refusals import refuses
from torch.testing import assert_close

DOUBLE = torch.float64


def disc(size=40, radius=12, center=(20.0, 20.0)):
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    return (x - center[0]) ** 2 + (y - center[1]) ** 2 < radius**2


def test_distance_is_to_the_nearest_pixel_of_the_mask():
    field = Silhouette.from_mask(MASK, dtype=DOUBLE).distance
    assert_close(field, torch.tensor(distance_field(MASK), dtype=DOUBLE))


def test_samples_are_centres_of_the_mask_spread_over_it():
    mask = disc(200, 60, (90.0, 110.0))
    samples = Silhouette.from_mask(mask, 400).samples
    ids = (samples - 0.5).long()
    assert_close(ids + 0.5, samples)
    assert mask[ids[:, 1], ids[:, 0]].all() and len(ids.unique(dim=0)) == 400
    assert_close(samples.mean(0), torch.tensor([90.0, 110.0]), atol=2.0, rtol=0)
    pixels = mask.nonzero().flip(-1) + 0.5
    gaps = torch.cdist(pixels, samples).amin(-1)
    assert gaps.max() < 20


def test_preparing_is_the_same_every_time_and_batch_by_batch():
    masks = torch.stack([disc(), disc(radius=5), torch.zeros(40, 40, dtype=torch.bool)])
    together = Silhouette.from_mask(masks[None], 30)
    assert together.distance.shape == (1, 3, 40, 40) and together.samples.shape == (1, 3, 30, 2)
    for i, mask in enumerate(masks):
        for got, expected in zip(together, Silhouette.from_mask(mask, 30), strict=True):
            assert_close(got[0, i], expected)


def test_mask_may_be_given_itself_in_any_type():
    points = 40 * torch.rand(3, 50, 2, dtype=DOUBLE)
    expected = silhouette_loss(points, Silhouette.from_mask(disc()))
    for mask in (disc(), disc().float(), disc().long()):
        assert_close(silhouette_loss(points, mask), expected)


def test_loss_is_the_sum_of_its_two_terms():
    points, silhouette = 60 * torch.rand(3, 50, 2) - 10, Silhouette.from_mask(disc())
    for penalty in ("l2", "geman_mcclure"):
        terms = [
            term(points, silhouette, penalty=penalty, sigma=5.0)
            for term in (silhouette_outside_loss, silhouette_coverage_loss)
        ]
        assert_close(silhouette_loss(points, silhouette, penalty=penalty, sigma=5.0), sum(terms))


def test_points_inside_cost_nothing_outside_and_dense_points_cover():
    silhouette = Silhouette.from_mask(disc())
    inside = disc().nonzero().flip(-1) + 0.5
    assert silhouette_loss(inside, silhouette) == 0
    assert silhouette_coverage_loss(inside[:1], silhouette) > 10
    assert silhouette_outside_loss(inside + 20, silhouette) > 10


@pytest.mark.parametrize("start", [(39.0, 1.0), (-300.0, 20.0), (1000.0, -1e4), (20.0, 1e6)])
def test_points_come_in_from_anywhere_even_from_outside_the_image(start):
    silhouette = Silhouette.from_mask(disc(), dtype=DOUBLE)
    point = torch.tensor([start], dtype=DOUBLE)
    for _ in range(200):
        point.requires_grad_()
        (gradient,) = torch.autograd.grad(silhouette_outside_loss(point, silhouette), point)
        point = (point - 0.3 * gradient).detach()
    assert silhouette_outside_loss(point, silhouette) < 1e-3


def test_distance_from_outside_the_image_is_never_overestimated():
    silhouette = Silhouette.from_mask(disc(), dtype=DOUBLE)
    points = 400 * torch.rand(500, 1, 2, dtype=DOUBLE) - 200
    pixels = (disc().nonzero().flip(-1) + 0.5).double()
    true = torch.cdist(points, pixels).amin((-2, -1))
    found = silhouette_outside_loss(points, silhouette, penalty="l1")
    assert (found <= true + 0.3).all() and (found >= 0.5 * true - 1).all()


def test_empty_mask_and_hidden_points_cost_nothing():
    empty = Silhouette.from_mask(torch.zeros(2, 8, 8))
    points = (8 * torch.rand(2, 5, 2)).requires_grad_()
    for silhouette, weight in ((empty, None), (Silhouette.from_mask(torch.ones(8, 8)), torch.zeros(5))):
        loss = silhouette_loss(points - 20, silhouette, weight)
        assert (loss == 0).all() and (torch.autograd.grad(loss.sum(), points)[0] == 0).all()
    assert silhouette_loss(torch.zeros(2, 0, 2), Silhouette.from_mask(disc())).tolist() == [0, 0]


def test_searching_in_pieces_finds_the_same(monkeypatch):
    points, silhouette = 40 * torch.rand(2, 70, 2), Silhouette.from_mask(disc(), 50)
    expected = silhouette_coverage_loss(points, silhouette)
    monkeypatch.setattr("physique.losses.silhouette.SEARCH_SIZE", 300)
    assert_close(silhouette_coverage_loss(points, silhouette), expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (2, 2)])
def test_smallest_images_work(size):
    silhouette = Silhouette.from_mask(torch.ones(size), 3)
    points = (4 * torch.rand(6, 2)).requires_grad_()
    loss = silhouette_loss(points, silhouette)
    assert loss.isfinite() and torch.autograd.grad(loss, points)[0].isfinite().all()


def test_body_finds_its_silhouette():
    """A camera that is off in scale and place comes back by the silhouette alone."""
    model = BodyModel(open_body("low"))
    vertices = model().vertices * torch.tensor([1.0, -1.0, 1.0])
    true = WeakPerspectiveCamera(torch.tensor(60.0), torch.tensor([64.0, 70.0]))
    pixels = true.project(vertices)
    mask = torch.zeros(128, 128)
    corners = pixels[model.faces]
    grid = torch.rand(60, 3, generator=torch.Generator().manual_seed(0))
    inside = torch.einsum("pk,fkd->pfd", grid / grid.sum(-1, keepdim=True), corners).reshape(-1, 2).long()
    mask[inside[:, 1], inside[:, 0]] = 1
    silhouette = Silhouette.from_mask(mask)
    unknowns = torch.tensor([45.0, 78.0, 60.0], requires_grad=True)
    optimiser = torch.optim.Adam([unknowns], lr=1.0)
    for _ in range(150):
        optimiser.zero_grad()
        camera = WeakPerspectiveCamera(unknowns[0], unknowns[1:])
        silhouette_loss(camera.project(vertices), silhouette).backward()
        optimiser.param_groups[0]["lr"] *= 0.98
        optimiser.step()
    scale, x, y = unknowns.tolist()
    assert abs(scale - 60) < 1 and abs(x - 64) < 0.5 and abs(y - 70) < 0.5


def test_misuse_is_refused_by_name():
    silhouette = Silhouette.from_mask(disc().expand(2, 40, 40))
    with refuses("mask"):
        Silhouette.from_mask(torch.ones(5))
    with refuses("mask"):
        Silhouette.from_mask(torch.ones(0, 5))
    with refuses("mask"):
        Silhouette.from_mask(torch.ones(5, 5), 0)
    for loss in (silhouette_loss, silhouette_outside_loss, silhouette_coverage_loss):
        with refuses("projected"):
            loss(torch.zeros(2, 5, 3), silhouette)
        with refuses("weight"):
            loss(torch.zeros(2, 5, 2), silhouette, torch.ones(4))
        with refuses("batch shapes"):
            loss(torch.zeros(3, 5, 2), silhouette)
        with refuses("penalty"):
            loss(torch.zeros(2, 5, 2), silhouette, penalty="cauchy")


def test_loss_stays_on_the_device_of_its_inputs():
    silhouette = Silhouette(*(each.to("meta") for each in Silhouette.from_mask(disc())))
    assert silhouette_loss(torch.zeros(2, 5, 2, device="meta"), silhouette).device.type == "meta"

"""Every fit refuses at once what it cannot move."""

import pytest
import torch
from physique.bodymodel import BodyModel, SurfacePoints, open_body
from physique.fitting import Correspondences, fit_joints, fit_keypoints, fit_vertices, register_surface
from refusals import refuses

SURFACE = SurfacePoints(torch.tensor([0, 7]), torch.full((2, 3), 1 / 3))
FITS = {
    "fit_joints": lambda model: fit_joints(model, torch.zeros(24, 3)),
    "fit_keypoints": lambda model: fit_keypoints(model, torch.zeros(17, 2), torch.ones(17), keypoint_set="coco17"),
    "fit_vertices": lambda model: fit_vertices(model, torch.zeros(2, 3), surface=SURFACE),
    "register_surface": lambda model: register_surface(
        model, Correspondences(SURFACE, torch.zeros(2, 2), torch.ones(2))
    ),
}


@pytest.mark.parametrize("fit", FITS)
def test_data_is_no_model(fit):
    with refuses("model", TypeError):
        FITS[fit](open_body("low"))


@pytest.mark.parametrize("fit", FITS)
def test_half_precision_is_refused(fit):
    with refuses("model"):
        FITS[fit](BodyModel(open_body("low")).half())

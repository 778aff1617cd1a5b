"""Bodies fitted to the 3D keypoints of another network and rig land on that network's 2D keypoints."""

import numpy as np
import pytest
import torch
from physique.bodymodel import BodyModel, KeypointRegressor, open_body, segment_scale_model
from physique.cameras import PerspectiveCamera
from physique.fitting import fit_joints

# Of the photograph, 1920 pixels wide; the network's own points are reproduced to a hundredth of a pixel.
CAMERA = PerspectiveCamera(torch.full((2,), 2535.27), torch.tensor([960.0, 445.0]), torch.eye(3), torch.zeros(3))
MOST_PIXELS = 12.0


@pytest.mark.parametrize("make", [lambda data: data, segment_scale_model], ids=["betas", "segment_scale"])
@pytest.mark.parametrize("name", ["img_subj00", "img_subj01"])
def test_people_of_a_photograph_are_reprojected_within_pixels(shared_data, name, make):
    with np.load(shared_data / "sam3d" / f"{name}.npz", allow_pickle=False) as person:
        target = torch.tensor(person["pred_keypoints_3d"] + person["pred_cam_t"])
        pixels = torch.tensor(person["pred_keypoints_2d"])
    torch.testing.assert_close(CAMERA.project(target), pixels, atol=0.01, rtol=0)
    model = BodyModel(make(open_body("low")))
    regressor = KeypointRegressor("mhr70", model.data)
    solution = fit_joints(model, target, keypoint_set="mhr70")
    matched = regressor.valid
    assert matched.sum() == 23, "17 of COCO's and six of the feet"
    found = CAMERA.project(model.keypoints(regressor, **solution.params))
    error = (found - pixels)[matched].norm(dim=-1).mean()
    print(f"{name}: {error:.1f} px, {1000 * solution.residuals.nanmean():.1f} mm")
    assert error < MOST_PIXELS

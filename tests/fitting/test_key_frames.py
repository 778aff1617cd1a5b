"""Key frames are valid ones, evenly spread, and what lies between them moves from one to the next."""

import pytest
import torch
from physique.fitting.key_frames import between, key_frames
from physique.geometry import axis_angle_to_matrix, matrix_to_axis_angle

F64 = torch.float64


@pytest.mark.parametrize(
    ("length", "every", "expected"),
    [
        (1, 5, [0]),
        (2, 5, [0, 1]),
        (6, 5, [0, 5]),
        (7, 5, [0, 3, 6]),
        (11, 5, [0, 5, 10]),
        (4, 1, [0, 1, 2, 3]),
        (0, 5, []),
    ],
)
def test_the_first_and_the_last_frame_and_some_between_them(length, every, expected):
    assert key_frames(torch.ones(3, length, dtype=torch.bool), every).tolist() == [expected] * 3


def test_invalid_frames_are_no_key_frames():
    valid = torch.ones(4, 11, dtype=torch.bool)
    valid[1, [0, 5, 10]] = False
    valid[2], valid[2, 7] = False, True
    valid[3] = False
    keys = key_frames(valid, 5)
    assert keys[0].tolist() == [0, 5, 10]
    assert valid[1, keys[1]].all() and keys[1, 0] == 1 and keys[1, -1] == 9
    assert keys[2].tolist() == [7, 7, 7]
    assert keys[3].shape == (3,)


def test_rotations_turn_evenly_across_half_a_turn_and_the_rest_moves_straight():
    axis = torch.nn.functional.normalize(torch.tensor([1.0, -2.0, 0.5], dtype=F64), dim=0)
    angles = torch.linspace(2.0, 4.4, 13, dtype=F64)
    turned = matrix_to_axis_angle(axis_angle_to_matrix(angles[:, None] * axis))
    truth = {"turn": turned.view(1, 13, 1, 3), "place": torch.linspace(-1, 5, 13, dtype=F64).view(1, 13, 1)}
    keys = torch.tensor([[0, 5, 6, 12]])
    found = between({name: value[:, keys[0]] for name, value in truth.items()}, keys, 13, ["turn"])
    torch.testing.assert_close(found["place"], truth["place"])
    torch.testing.assert_close(axis_angle_to_matrix(found["turn"]), axis_angle_to_matrix(truth["turn"]))
    assert found["turn"].norm(dim=-1).max() <= torch.pi + 1e-9


def test_nothing_moves_before_the_first_and_after_the_last_key_frame():
    keys = torch.tensor([[2, 4], [3, 3]])
    values = torch.tensor([[1.0, 3.0], [5.0, 5.0]])
    expected = torch.tensor([[1.0, 1.0, 1.0, 2.0, 3.0, 3.0], [5.0] * 6])
    torch.testing.assert_close(between({"x": values}, keys, 6, ())["x"], expected)

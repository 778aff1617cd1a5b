"""What does not fit is refused before any work, with the name, what was expected, what was got, and what to do."""

import pytest
import torch
from physique.bodymodel import BodyModel, SurfacePoints, segment_scale_model, synthetic_model
from physique.geometry import check_values
from refusals import refuses


def refusal(call, name, error=ValueError):
    """Return the text of the error that `call` raises."""
    with refuses(name, error):
        try:
            call()
        except error as refused:
            text = str(refused)
            raise
    return text


def model_of(family="smpl", **options):
    return BodyModel(synthetic_model(family, num_vertices=30), **options)


@pytest.mark.parametrize(
    "family, name, shape, text",
    [
        (
            "smplx",
            "body_pose",
            (8, 63),
            "body_pose: expected (*batch, 21, 3), got (8, 63); use body_pose.unflatten(-1, (21, 3))",
        ),
        (
            "smpl",
            "body_pose",
            (69,),
            "body_pose: expected (*batch, 23, 3), got (69,); use body_pose.unflatten(-1, (23, 3))",
        ),
        (
            "smpl",
            "body_pose",
            (8, 21, 3),
            "body_pose: expected (*batch, 23, 3), got (8, 21, 3); "
            "the last dimensions must match, dimensions before them are the batch",
        ),
        (
            "smpl",
            "global_orient",
            (8, 9),
            "global_orient: expected (*batch, 3), got (8, 9); "
            "the last dimensions must match, dimensions before them are the batch",
        ),
        (
            "smpl",
            "transl",
            (),
            "transl: expected (*batch, 3), got (); "
            "the last dimensions must match, dimensions before them are the batch",
        ),
        ("smpl", "betas", (2, 11), "betas: expected at most 10 coefficients, got 11 in (2, 11); use betas[..., :10]"),
        (
            "flame",
            "expression",
            (12,),
            "expression: expected at most 10 coefficients, got 12 in (12,); use expression[..., :10]",
        ),
        (
            "mano",
            "hand_pose",
            (2, 45),
            "hand_pose: expected (*batch, 15, 3), got (2, 45); use hand_pose.unflatten(-1, (15, 3))",
        ),
        (
            "smplh",
            "left_hand_pose",
            (6,),
            "left_hand_pose: expected (*batch, 15, 3), got (6,); "
            "the last dimensions must match, dimensions before them are the batch",
        ),
    ],
)
@pytest.mark.parametrize("path", ("forward", "joints"))
def test_a_wrong_shape_says_what_to_do(family, name, shape, text, path):
    model = model_of(family)
    call = model if path == "forward" else model.joints
    assert refusal(lambda: call(**{name: torch.zeros(shape)}), name) == text


@pytest.mark.parametrize(
    "rotation, shape",
    [("matrix", (23, 3)), ("rotation_6d", (23, 3)), ("quaternion_wxyz", (23, 3)), ("axis_angle", (23, 3, 3))],
)
def test_the_rotation_format_is_never_guessed(rotation, shape):
    with refuses("body_pose"):
        model_of()(body_pose=torch.zeros(shape), rotation=rotation)


def test_an_unknown_rotation_format_is_refused():
    with refuses("rotation"):
        model_of()(global_orient=torch.zeros(3), rotation="euler")


@pytest.mark.parametrize(
    "family, name",
    [
        ("smpl", "left_hand_pose"),
        ("smpl", "expression"),
        ("smpl", "segment_scale"),
        ("smpl", "jaw_pose"),
        ("smplh", "jaw_pose"),
        ("smplx", "hand_pose"),
        ("mano", "body_pose"),
        ("flame", "body_pose"),
        ("star", "leye_pose"),
    ],
)
def test_a_part_that_the_family_lacks_is_refused_with_those_it_has(family, name):
    model = model_of(family)
    text = refusal(lambda: model(**{name: torch.zeros(3)}), name)
    assert all(part in text for part in (family, "betas", *model.data.table_row.part_names, "transl"))
    model(**{name: None})


def test_a_model_with_segment_scales_has_no_betas():
    model = BodyModel(segment_scale_model(synthetic_model(num_vertices=30)))
    with refuses("betas"):
        model(betas=torch.zeros(10))


@pytest.mark.parametrize(
    "per_axis, shape", [(False, (23,)), (False, (24, 3)), (False, (2, 24, 1)), (True, (24,)), (True, (72,))]
)
def test_segment_scales_must_be_complete(per_axis, shape):
    model = BodyModel(segment_scale_model(synthetic_model(num_vertices=30), per_axis=per_axis))
    with refuses("segment_scale"):
        model(segment_scale=torch.ones(shape))


@pytest.mark.parametrize("method", ("forward", "joints", "rest", "pose"))
def test_a_misspelt_name_is_a_type_error(method):
    model = model_of()
    rest = (model.rest(),) if method == "pose" else ()
    with refuses("body_poses", TypeError):
        getattr(model, method)(*rest, body_poses=torch.zeros(23, 3))


def test_each_stage_refuses_the_arguments_of_the_other():
    model = model_of("smplx")
    with refuses("global_orient, transl"):
        model.rest(betas=torch.zeros(10), global_orient=torch.zeros(3), transl=torch.zeros(3))
    with refuses("betas"):
        model.pose(model.rest(), betas=torch.zeros(10))
    model.rest(transl=None)
    model.pose(model.rest(), betas=None)


@pytest.mark.parametrize("name, shape", [("vertices", (29, 3)), ("joints", (24, 2))])
def test_a_rest_body_of_another_model_is_refused(name, shape):
    model = model_of()
    with refuses(f"rest.{name}"):
        model.pose(model.rest()._replace(**{name: torch.zeros(shape)}))


def test_batches_that_do_not_broadcast_are_listed():
    model = model_of()
    arguments = {"betas": torch.zeros(2, 10), "body_pose": torch.zeros(3, 23, 3)}
    for call in (model, model.joints):
        assert "betas (2,), body_pose (3,)" in refusal(lambda call=call: call(**arguments), "batch shapes")
    with refuses("batch shapes"):
        model.pose(model.rest(betas=arguments["betas"]), body_pose=arguments["body_pose"])
    with refuses("batch shapes"):
        model(transl=torch.zeros(2, 3), global_orient=torch.zeros(3, 3))


def test_surface_points_that_do_not_fit_are_refused():
    model = model_of()
    faces, weights = torch.zeros(4, 5, dtype=torch.int64), torch.zeros(4, 5, 3)
    with refuses("surface.barycentric"):
        model.points(SurfacePoints(faces, weights[:, :4]))
    with refuses("batch shapes"):
        model.points(SurfacePoints(faces, weights), betas=torch.zeros(3, 10))
    with refuses("surface.barycentric", TypeError):
        model.points(SurfacePoints(faces, weights.double()))


@pytest.mark.parametrize("name", ("betas", "body_pose", "transl"))
def test_another_floating_type_is_a_type_error_with_the_remedy(name):
    shapes = {"betas": (10,), "body_pose": (23, 3), "transl": (3,)}
    value = torch.zeros(shapes[name], dtype=torch.float64)
    text = f"{name}: expected torch.float32, got torch.float64; use {name}.to(torch.float32) or model.to(torch.float64)"
    assert refusal(lambda: model_of()(**{name: value}), name, TypeError) == text
    with refuses(name, TypeError):
        model_of(dtype=torch.float64)(**{name: value.float()})


def test_integers_are_a_type_error():
    text = "betas: expected torch.float32, got torch.int64; use betas.to(torch.float32)"
    assert refusal(lambda: model_of()(betas=torch.zeros(10, dtype=torch.int64)), "betas", TypeError) == text
    model = BodyModel(segment_scale_model(synthetic_model(num_vertices=30)))
    with refuses("segment_scale", TypeError):
        model(segment_scale=torch.ones(24, dtype=torch.int64))


@pytest.mark.parametrize("value", ([0.0] * 10, 1.0, "betas"), ids=("list", "number", "text"))
def test_what_is_no_tensor_is_a_type_error(value):
    with refuses("betas", TypeError):
        model_of()(betas=value)


@pytest.mark.parametrize("name, shape", [("betas", (10,)), ("body_pose", (23, 3)), ("transl", (3,))])
def test_values_are_checked_on_request_only(name, shape):
    model = model_of()
    value = torch.full(shape, torch.nan)
    model(**{name: value})
    with check_values(), refuses(name):
        model(**{name: value})


def test_rotation_matrices_are_checked_on_request_only():
    model = model_of()
    stretched = 1.1 * torch.eye(3)
    model(global_orient=stretched, rotation="matrix")
    with check_values(), refuses("matrix"):
        model(global_orient=stretched, rotation="matrix")


@pytest.mark.parametrize("data", ("SMPL_NEUTRAL.pkl", None, {}), ids=str)
def test_a_model_is_made_of_data_not_of_a_path(data):
    with refuses("data", TypeError):
        BodyModel(data)


@pytest.mark.parametrize("dtype", (torch.int64, torch.bool, torch.complex64))
def test_a_model_needs_a_floating_type(dtype):
    with refuses("dtype", TypeError):
        model_of(dtype=dtype)


@pytest.mark.parametrize("ids", ([], [[1, 2]], [30], [-1], [1.0]), ids=str)
def test_vertex_ids_that_do_not_fit_are_refused(ids):
    dtype = torch.float32 if ids == [1.0] else torch.int64
    with refuses("ids"):
        model_of().select_vertices(torch.tensor(ids, dtype=dtype))

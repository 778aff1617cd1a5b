"""OpenPose and COCO keypoint files: real ones, small ones by hand, and damaged ones."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from physique.bodymodel import Keypoints2D, load_keypoints


def write(folder: Path, content: object) -> Path:
    path = folder / "file.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def openpose(*people: list[float], key: str = "pose_keypoints_2d", version: float = 1.3) -> dict:
    return {"version": version, "people": [{key: person} for person in people]}


def coco(**entry: object) -> dict:
    return {"annotations": [{"image_id": 7, "keypoints": [1.0, 2.0, 2] * 17, "bbox": [1, 2, 3, 4], **entry}]}


def test_openpose_files_of_version_1_0(shared_data):
    people = load_keypoints(shared_data / "openpose" / "hmr_random_coco18_v1.0_2people.json")
    assert people.keypoint_set == "openpose18" and len(people) == 2
    assert people.points[0, 1].tolist() == pytest.approx([447.67, 204.633])
    assert people.confidence[0, 17].item() == 1.0, "1.00587 in the file"
    assert people.confidence[0, 0].item() == 0.0 and people.points[0, 0].tolist() == [0.0, 0.0]
    assert people.points.dtype == torch.float32


def test_openpose_files_with_hands_and_face(shared_data):
    people = load_keypoints(shared_data / "openpose" / "spin_im1010_body25_hands_face.json", dtype=torch.float64)
    assert people.keypoint_set == "openpose25" and people.points.shape == (1, 25, 2)
    assert people.points[0, 0].tolist() == [66.4171, 47.0342] and people.confidence[0, 0].item() == 0.614349
    signer = load_keypoints(shared_data / "openpose" / "signer_000.json")
    assert signer.keypoint_set == "openpose25" and not signer.confidence[0, 9:15].any()


def test_coco_annotation_files(shared_data):
    path = shared_data / "coco" / "person_keypoints_2images.json"
    content = json.loads(path.read_text())
    wanted = [a for a in content["annotations"] if not a.get("iscrowd")]
    people = load_keypoints(path)
    assert people.keypoint_set == "coco17" and len(people) == len(wanted) > 0
    sizes = {image["id"]: [image["width"], image["height"]] for image in content["images"]}
    for row, entry in enumerate(wanted):
        flags = entry["keypoints"][2::3]
        assert people.confidence[row].tolist() == [[0.0, 0.5, 1.0][flag] for flag in flags]
        assert people.points[row, :, 0].tolist() == [
            x if f else 0 for x, f in zip(entry["keypoints"][::3], flags, strict=True)
        ]
        assert people.image_ids is not None and people.image_ids[row] == entry["image_id"]
        assert people.image_sizes is not None and people.image_sizes[row].tolist() == sizes[entry["image_id"]]
        assert people.boxes is not None and people.boxes[row].tolist() == pytest.approx(entry["bbox"])
    assert people.scores is None


def test_a_bounding_box_file_is_not_a_keypoint_file(shared_data):
    with pytest.raises(ValueError, match=r"spin_im1010_bbox\.json: expected 'people' .* got a dictionary with 'bbox'"):
        load_keypoints(shared_data / "openpose" / "spin_im1010_bbox.json")


@pytest.mark.parametrize("count, name", [(25, "openpose25"), (18, "openpose18"), (15, "openpose15")])
def test_the_number_of_points_names_the_openpose_set(count, name, tmp_path):
    people = load_keypoints(write(tmp_path, openpose([1.0, 2.0, 0.5] * count, [3.0, 4.0, 0.25] * count)))
    assert people.keypoint_set == name
    assert people.points[1].tolist() == [[3.0, 4.0]] * count and people.confidence[0].tolist() == [0.5] * count


def test_the_set_can_be_given(tmp_path):
    path = write(tmp_path, openpose([1.0, 2.0, 0.5] * 25))
    assert load_keypoints(path, keypoint_set="openpose25b").keypoint_set == "openpose25b"
    with pytest.raises(ValueError, match="54 numbers in 'pose_keypoints_2d' of every person, got 75"):
        load_keypoints(path, keypoint_set="openpose18")


def test_occluded_points_take_the_confidence_asked_for(tmp_path):
    path = write(tmp_path, coco(keypoints=[5, 6, 1] * 17))
    assert load_keypoints(path, occluded=0.2).confidence.unique().tolist() == pytest.approx([0.2])
    hidden = load_keypoints(path, occluded=0.0)
    assert not hidden.confidence.any() and not hidden.points.any()


def test_coco_results_keep_their_scores(tmp_path):
    path = write(tmp_path, [{"image_id": 3, "keypoints": [5, 6, 0.7] * 17, "score": 0.9}])
    people = load_keypoints(path, dtype=torch.float64)
    assert people.scores is not None and people.scores.tolist() == [0.9]
    assert people.confidence[0].tolist() == [0.7] * 17 and people.boxes is None and people.image_ids == (3,)


def test_whole_body_parts_are_joined_in_order(tmp_path):
    parts = {"foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}
    arrays = {key: [float(i), 0.0, 2] * count for i, (key, count) in enumerate(parts.items())}
    people = load_keypoints(write(tmp_path, coco(**arrays)))
    assert people.keypoint_set == "coco_wholebody133"
    assert people.points[0, :, 0].tolist() == [1.0] * 17 + [0.0] * 6 + [1.0] * 68 + [2.0] * 21 + [3.0] * 21


def test_crowds_are_left_out_and_empty_files_have_nobody(tmp_path):
    crowd = coco()["annotations"][0] | {"iscrowd": 1}
    people = load_keypoints(write(tmp_path, {"annotations": [crowd, *coco()["annotations"]]}))
    assert len(people) == 1
    for content, name in ((openpose(), "openpose25"), ({"annotations": [crowd]}, "coco17"), ([], "coco17")):
        nobody = load_keypoints(write(tmp_path, content))
        count = int(name[-2:])
        assert nobody.keypoint_set == name and nobody.points.shape == (0, count, 2)
        assert nobody.confidence.shape == (0, count) and len(nobody.convert("lsp14")) == 0


def test_converted_midpoints_are_missing_where_an_end_is():
    points, confidence = torch.ones(2, 17, 2), torch.full((2, 17), 0.8)
    confidence[0, 5], confidence[1, 5] = 0.0, 0.3
    people = Keypoints2D(points, confidence, "coco17").convert("openpose25")
    assert people.keypoint_set == "openpose25"
    assert people.confidence[:, 1].tolist() == pytest.approx([0.0, 0.3]) and people.points[0, 1].tolist() == [0.0, 0.0]
    assert not people.confidence[:, 19:].any()


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json: expected a \.json file, got no file"):
        load_keypoints(tmp_path / "none.json")
    with pytest.raises(ValueError, match="expected a .json file, got a folder"):
        load_keypoints(tmp_path)


@pytest.mark.parametrize(
    "content, text",
    [
        ("", "expected JSON"),
        ("{", "expected JSON"),
        ("[" * 100_000, "nested too deep"),
        ('{"people": [{"pose_keypoints_2d": [NaN, 0, 0]}]}', "the number NaN"),
        ('{"people": [{"pose_keypoints_2d": [' + ", ".join(["1e999"] * 75) + "]}]}", "finite numbers"),
        ('{"people": [{"pose_keypoints_2d": [1' + "0" * 400 + "]}]}", "an integer too large"),
        ({"people": {}}, "a list of dictionaries in 'people'"),
        ({"people": [1]}, "a list of dictionaries in 'people'"),
        ({"people": [{"face": []}]}, "got a dictionary with 'face'"),
        (openpose(["a\nb"] * 75), "a list of numbers"),
        (openpose([0.0] * 74), "got 74"),
        (openpose([0.0] * 75, [0.0] * 54), "got 54, 75"),
        (openpose([]), "got 0"),
        (openpose([True] * 75), "a list of numbers"),
        (coco(keypoints=[0, 0, 3] * 17), "flags 0, 1 or 2 in annotations, got 3"),
        (coco(keypoints="much\ntext"), r"got str 'much\ntext'"),
        (coco(bbox=[1, 2, 3]), "4 numbers in 'bbox', got 3"),
        (coco(foot_kpts=[0.0]), "18 numbers in foot_kpts, got 1"),
        ({"annotations": [{"bbox": []}]}, "choose the person_keypoints file"),
        ({**coco(), "images": [{"id": 7, "width": None}]}, "a list of numbers in 'images'"),
        ([{"keypoints": [0] * 51, "score": None}], "a list of numbers in 'score'"),
        ("3", "got int 3"),
        ({}, "a dictionary with nothing"),
    ],
)
def test_damaged_files_are_named_in_one_line(content, text, tmp_path):
    path = write(tmp_path, content)
    with pytest.raises(ValueError) as caught:
        load_keypoints(path)
    assert str(caught.value).startswith(f"{path}: expected ") and text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "bytes.json"
    path.write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(ValueError, match=r"bytes\.json: expected JSON"):
        load_keypoints(path)


KEYS = st.sampled_from(
    ["people", "annotations", "images", "keypoints", "pose_keypoints_2d", "score", "bbox", "image_id", "id", "width"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
NUMBERS = st.lists(st.floats() | st.integers() | JSON, max_size=3).map(lambda head: (head + [0] * 75)[:75])
ENTRIES = st.dictionaries(KEYS, JSON | NUMBERS | NUMBERS.map(lambda values: values[:51]), max_size=5)
FILES = JSON | st.fixed_dictionaries({"people": st.lists(ENTRIES, max_size=3)})
FILES = FILES | st.fixed_dictionaries({"annotations": st.lists(ENTRIES, max_size=3), "images": st.lists(ENTRIES)})


@given(FILES.map(json.dumps) | st.text() | st.binary())
def test_any_content_gives_people_or_one_clear_line(content):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "any.json"
        path.write_bytes(content.encode(errors="surrogatepass") if isinstance(content, str) else content)
        try:
            people = load_keypoints(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: expected ") and len(str(error).splitlines()) == 1
        else:
            assert people.points.shape == (*people.confidence.shape, 2)
            assert bool(people.points.isfinite().all())
            assert bool(((people.confidence >= 0) & (people.confidence <= 1)).all())

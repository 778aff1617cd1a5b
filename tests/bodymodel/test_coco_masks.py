"""COCO's run-length masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from physique.bodymodel.coco_masks import MAX_PIXELS, decode_mask

# Written by pycocotools 2.0.11 for a disc and a bar in 200 × 90, and for two blocks in 12 × 9.
DISC = (
    "nV3=h56K4L4M2M4M2N2N2O0O2N2O0O2O0O2O000O2O000000000000000000000001N10001N101N101N2N101N2N2N3L3N3L4L5J"
    "Rk2R5ooL00000000000000000K"
)


def written_out(mask):
    """Return the encoding of a mask, by the rules: runs down the columns, zeros first, five bits a letter."""
    runs, current = [0], False
    for value in mask.ravel(order="F").tolist():
        if value != current:
            runs.append(0)
            current = value
        runs[-1] += 1
    text = ""
    for k, run in enumerate(runs):
        rest = run - runs[k - 2] if k > 2 else run
        while True:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
            if not more:
                break
    return text, runs


def test_masks_of_the_reference_tools():
    y, x = np.mgrid[:200, :90]
    disc = ((y - 100) ** 2 + (x - 40) ** 2 < 25**2) | ((y >= 5) & (y < 180) & (x >= 80))
    assert np.array_equal(decode_mask({"size": [200, 90], "counts": DISC}), disc)
    blocks = np.zeros((12, 9), bool)
    blocks[2:7, 1:4] = blocks[5:, 6:] = True
    assert np.array_equal(decode_mask({"size": [12, 9], "counts": b">57000k02SO000"}), blocks)


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=40)))
def test_encoded_masks_decode_to_themselves(mask):
    text, runs = written_out(mask)
    size = list(mask.shape)
    for counts in (text, text.encode(), runs):
        assert np.array_equal(decode_mask({"size": size, "counts": counts}), mask)


@pytest.mark.parametrize(
    "mask",
    [
        {},
        {"size": [2, 2]},
        {"counts": "04"},
        {"size": [2, 2], "counts": None},
        {"size": [2, 2], "counts": [1, 2]},
        {"size": [2, 2], "counts": [1, 4]},
        {"size": [2, 2], "counts": [5, -1]},
        {"size": [2, 2], "counts": [4.0]},
        {"size": [2, 2], "counts": [True, 3]},
        {"size": [2, 2], "counts": "4o"},
        {"size": [2, 2], "counts": "4\n"},
        {"size": [2, 2], "counts": "4é"},
        {"size": [2, 2], "counts": "o" * 12 + "0"},
        {"size": [2, 2], "counts": "0" * 10_000},
        {"size": [2, -2], "counts": [4]},
        {"size": [2.0, 2], "counts": [4]},
        {"size": [4], "counts": [4]},
        {"size": [1 << 20, 1 << 20], "counts": [1 << 40]},
        {"size": [MAX_PIXELS + 1, 1], "counts": [MAX_PIXELS + 1]},
    ],
)
def test_damaged_masks_are_refused(mask):
    with pytest.raises(ValueError, match="^mask: expected .+, got .+; the mask is "):
        decode_mask(mask)


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=40))
def test_any_text_is_a_mask_or_refused(text):
    try:
        assert decode_mask({"size": [7, 5], "counts": text}).shape == (7, 5)
    except ValueError as error:
        assert str(error).startswith("mask: expected ")

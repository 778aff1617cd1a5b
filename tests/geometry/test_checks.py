import pytest
import torch
from physique.geometry import check_values
from physique.geometry.checks import broadcast_batches, expect_finite, expect_shape
from refusals import refuses


def test_the_batch_is_what_precedes_the_event():
    assert expect_shape("x", torch.zeros(2, 0, 5, 3), "N", 3) == (2, 0)
    assert expect_shape("x", torch.zeros(3), 3) == ()


def test_a_flattened_value_is_told_how_to_unflatten():
    with pytest.raises(
        ValueError, match=r"^x: expected \(\*batch, 21, 3\), got \(8, 63\); use x.unflatten\(-1, \(21, 3\)\)$"
    ):
        expect_shape("x", torch.zeros(8, 63), 21, 3)
    with refuses("x"):
        expect_shape("x", torch.zeros(()), 3)
    with refuses("x", TypeError):
        expect_shape("x", [1.0, 2.0, 3.0], 3)


def test_batches_broadcast_or_are_listed():
    assert broadcast_batches({"a": torch.Size((4, 1)), "b": torch.Size((3,)), "c": torch.Size()}) == (4, 3)
    assert broadcast_batches({}) == ()
    with pytest.raises(ValueError, match=r"got a \(4,\), b \(3,\); "):
        broadcast_batches({"a": torch.Size((4,)), "b": torch.Size((3,))})


def test_values_are_checked_inside_the_block_only_and_blocks_nest():
    bad = torch.tensor([1.0, torch.nan])
    expect_finite("x", bad)
    with check_values():
        with check_values():
            expect_finite("x", torch.ones(3))
        with refuses("x"):
            expect_finite("x", bad)
    expect_finite("x", bad)


def test_an_error_inside_the_block_ends_the_checking():
    with pytest.raises(KeyError), check_values():
        raise KeyError
    expect_finite("x", torch.tensor(torch.inf))

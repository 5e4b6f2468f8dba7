"""N explicit read-outs against the sigma/sqrt(N) shortcut, and what is refused."""

import pytest
import torch
from scipy import stats

from epkit import GaussianReadout


@pytest.mark.parametrize("samples", [1, 4, 25])
@pytest.mark.parametrize("averaging", ["shortcut", "explicit"])
def test_the_mean_of_n_reads_is_gaussian_with_sigma_over_root_n(samples, averaging):
    noise = GaussianReadout(1.0, samples, averaging).noise((20_000,), torch.Generator().manual_seed(samples))
    assert stats.kstest(noise.numpy(), "norm", args=(0, samples**-0.5)).pvalue > 1e-3
    assert float(noise.var()) * samples == pytest.approx(1, abs=0.05)


def test_explicit_averaging_and_the_shortcut_have_one_distribution():
    drawn = [
        GaussianReadout(1.0, 9, averaging).noise((20_000,), torch.Generator().manual_seed(seed)).numpy()
        for seed, averaging in enumerate(("shortcut", "explicit"))
    ]
    assert stats.ks_2samp(*drawn).pvalue > 1e-3


def test_explicit_reads_are_drawn_in_pieces_that_fit_into_memory():
    noise = GaussianReadout(1.0, 1000, "explicit").noise((20_000,), torch.Generator().manual_seed(0))
    assert float(noise.std()) == pytest.approx(1000**-0.5, rel=0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1e-5,), "sigma = -1e-05: a standard deviation must be finite and >= 0"),
        ((float("nan"),), "must be finite"),
        ((torch.tensor([0.0, -1.0]),), "must be finite and >= 0"),
        ((1e-5, 0), "samples = 0"),
        ((1e-5, 1, "none"), "averaging = 'none': allowed are"),
    ],
)
def test_impossible_read_outs_are_refused(arguments, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        GaussianReadout(*arguments)
    if isinstance(caught.value, ValueError):
        assert caught.match(message)


def test_one_sigma_for_all_or_one_a_member():
    assert GaussianReadout(2.0).scale(3).tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(ValueError, match="2 values for 3 members"):
        GaussianReadout(torch.ones(2)).scale(3)

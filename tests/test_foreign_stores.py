"""Stores that others wrote, or that are damaged: refused in a line and left as they are, shown and never run."""

import json
import warnings

import h5py
import matplotlib.pyplot as plt
import numpy as np
import pytest
import synthetic
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bad_input import check_lines, fuzzed
from test_experiments import TINY

import epkit
from epkit import figures, study
from epkit.sweep import runs, store
from epkit.sweep.parameters import Sweep
from epkit.validation import validated

TABLE = "bad_input"  # where these are counted


def hdf5(write):
    def made(path):
        with h5py.File(path, "w") as file:
            write(file)

    return made


def netcdf(**attributes):
    def made(path):
        xr.Dataset({"a": ("x", [1.0])}, attrs=attributes).to_netcdf(path, engine="netcdf4")

    return made


def variable(values, **attributes):
    return hdf5(lambda file: file.create_dataset("x", data=values).attrs.update(attributes))


PICKLE = np.void(b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.")
FOREIGN = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("dataset,sigma\n"),
    "HTML": lambda path: path.write_text("<!DOCTYPE html><script>alert(1)</script>"),
    "pickle": lambda path: path.write_bytes(PICKLE.tobytes()),
    "a folder": lambda path: path.mkdir(),
    "HDF5's signature and nothing more": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"),
    "HDF5 without dimensions": variable([1.0, 2.0]),
    "HDF5 compound": variable(np.zeros(2, [("a", "f4"), ("b", "i4")])),
    "HDF5 opaque": variable(PICKLE),
    "HDF5 reference": hdf5(lambda file: file.create_dataset("x", data=[file.ref], dtype=h5py.ref_dtype)),
    "HDF5 link to itself": hdf5(lambda file: file.__setitem__("x", h5py.SoftLink("/x"))),
    "HDF5 link to another file": hdf5(lambda file: file.__setitem__("x", h5py.ExternalLink("other.nc", "/y"))),
    "HDF5 of 80 TB": hdf5(lambda file: file.create_dataset("x", (10**13,), "f8", chunks=(10**6,))),
    "dates that are none": variable([1.0], units="days since lunch"),
    "a scale that is a text": variable([1.0], scale_factor="large"),
    "no attributes": netcdf(),
    "parameters not JSON": netcdf(parameters="dataset: [digits]"),
    "parameters a list": netcdf(parameters="[1, 2]"),
    "parameters a number": netcdf(parameters=3),
    "parameters an array": netcdf(parameters=np.arange(3)),
    "parameters nested": netcdf(parameters="[" * 100_000),
    "parameters a pickle": hdf5(lambda file: file.attrs.update(parameters=PICKLE)),
    "parameters empty": hdf5(lambda file: file.attrs.update(parameters=h5py.Empty("f"))),
    "parameters not UTF-8": hdf5(lambda file: file.attrs.create("parameters", np.bytes_(b"\xff\xfe"))),
}


@pytest.mark.parametrize(("name", "make"), FOREIGN.items(), ids=FOREIGN)
def test_a_foreign_file_at_the_stores_place_is_refused_and_left_as_it_is(tmp_path, monkeypatch, counted, name, make):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sweep.nc"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(store.StoreError, match=r"sweep\.nc: not a .*; it is left as it is: name another") as caught:
        runs.complete_store(path, validated(Sweep, TINY))
    check_lines(str(caught.value), str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["sweep.nc"]
    assert before is None or path.read_bytes() == before
    counted("stores", "refused and left as they are")


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-200], lambda c: c[:3000] + bytes([c[3000] ^ 1]) + c[3001:], lambda c: c + b"x"]
)
def test_a_store_of_ours_that_is_damaged_is_set_aside(whole, tmp_path, damage):
    path = tmp_path / "sweep.nc"
    path.write_bytes(damage(whole.read_bytes()))
    with pytest.warns(UserWarning, match=r"sweep\.nc: .*; moved to sweep\.nc\.damaged"):
        assert store.read_own(path) is None
    assert [p.name for p in tmp_path.iterdir()] == ["sweep.nc.damaged"]


def test_a_sweep_beside_foreign_files_leaves_them_alone(tmp_path):
    made = {name: tmp_path / f"{k}.nc" for k, name in enumerate(FOREIGN) if name != "HDF5 of 80 TB"}
    for name, path in made.items():
        FOREIGN[name](path)
    ensemble = xr.Dataset({"run": ("member", ["a", "b"]), "temperature": ("member", [1.0, 2.0])})
    ensemble.to_netcdf(tmp_path / "climate.nc", engine="netcdf4")
    before = sorted(tmp_path.iterdir())
    ds = epkit.run(TINY | {"seeds": 1, "epochs": 1}, tmp_path / "sweep.nc")
    assert ds.test_error.notnull().all()
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "sweep.nc", tmp_path / "sweep.lock"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "sweep.nc"
    epkit.run(TINY | {"seeds": 1, "epochs": 1}, path)
    return path


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # h5netcdf closes what it never opened
@settings(fuzzed, max_examples=40)
@given(data=st.data())
def test_a_store_with_some_bytes_changed_or_cut_off(whole, tmp_path, counted, data):
    content = bytearray(whole.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        places = st.integers(0, len(content) - 1) | st.integers(0, 3000)
        for place in data.draw(st.lists(places, min_size=1, max_size=9)):
            content[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "fuzzed.nc"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            store.parameters(store.read(path))
            counted("fuzzed: stores", "readable")
        except store.StoreError as error:
            check_lines(str(error), str(path))
            counted("fuzzed: stores", "refused")


JUDGES = (study.claim_limit, study.claim_scaling, study.claim_datasets, study.claim_benefit, study.claim_optimum)
DRAWN = (figures.training_curves, figures.unit_activity)


@pytest.mark.parametrize("lacks", ["test_error", "diverged", "chance", "title", "sigma", "seed", "epoch", "parameters"])
def test_judging_a_foreign_dataset_names_all_that_it_lacks(counted, lacks):
    ds = synthetic.store(datasets=("mnist", "fashion_mnist"), samples=(1, 4, 16))
    match lacks:
        case "sigma" | "seed" | "epoch":
            ds = ds.isel({lacks: 0}, drop=True)
        case "parameters":
            ds.attrs.clear()
        case _:
            ds = ds.drop_vars(lacks)
    for judge in JUDGES:
        with pytest.raises(store.StoreError, match=f"this Dataset: .*lacks .*{lacks}"):
            judge(ds)
        counted("foreign Datasets", "refused")
    with pytest.raises(store.StoreError, match=r"lacks variable test_error, .*dimension sigma"):
        study.final_error(xr.Dataset())
    if lacks in ("test_error", "title", "sigma"):
        ds = ds.isel(samples=[0])
        for draw in DRAWN:
            with pytest.raises(store.StoreError, match=f"lacks .*{lacks}"):
                draw(ds)


# A store from another person is data.

HOSTILE = [
    "<script>alert(1)</script>",
    r"$\frac{",
    "$x$ and $",
    "100 % \\ _ ^ {",
    "a\nb",
    "<img src=x onerror=alert(1)>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_of_a_store_are_shown_and_never_run(text):
    ds = synthetic.store(datasets=("mnist", "fashion_mnist"), seeds=2)
    ds["title"] = "dataset", [text, "FashionMNIST"]
    ds = ds.assign_attrs(
        source=text, machine=text, parameters=json.dumps(store.parameters(ds) | {"sizes": {"a": [text]}})
    )
    shown = epkit.origin(ds)._repr_html_() + study.claim_datasets(ds)._repr_html_() + study.coverage(ds)._repr_html_()
    assert "<script" not in shown
    assert "<img" not in shown
    limits = study.critical_limit(study.final_error(ds), ds.chance)
    for figure in (
        figures.error_over_sigma(ds, limits),
        figures.limit_ratios(ds, limits, study.claim_datasets(ds)),
        figures.sample_images({text: np.zeros((1, 2, 2))}),
    ):
        figure.canvas.draw()
        plt.close(figure)

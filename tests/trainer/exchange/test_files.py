"""Files of other software: each kind gives the arrays written; damaged ones are named."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from trainer.config import ConfigError
from trainer.exchange import describe_arrays, read_arrays

RANDOM = np.random.default_rng(3)
Y = RANDOM.normal(size=(3, 4, 5)) + 1j * RANDOM.normal(size=(3, 4, 5))


def save_v73(path: Path, variables: dict[str, np.ndarray]) -> None:
    """Write variables as MATLAB's `save -v7.3` does.

    HDF5 behind 512 bytes of text, axes in reverse order, complex numbers as compounds of `real`
    and `imag`, structs as groups, and a `MATLAB_class` on everything.
    """
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            stored = np.atleast_2d(value).T
            if np.iscomplexobj(stored):
                pairs = np.empty(stored.shape, dtype=[("real", "<f8"), ("imag", "<f8")])
                pairs["real"], pairs["imag"] = stored.real, stored.imag
                stored = pairs
            file[name.replace(".", "/")] = stored
            file[name.replace(".", "/")].attrs["MATLAB_class"] = np.bytes_("double")
            if "." in name:
                file[name.partition(".")[0]].attrs["MATLAB_class"] = np.bytes_("struct")
        file.create_group("#refs#")["a"] = np.zeros(2)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")


def test_both_versions_of_mat_files_give_axes_in_matlabs_order(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "five.mat", {"Y": Y, "s": {"f": 2.0, "bits": Y.real > 0}})
    save_v73(tmp_path / "seven.mat", {"Y": Y, "s.f": np.array(2.0), "s.bits": Y.real > 0})
    for file in ("five.mat", "seven.mat"):
        found = read_arrays([tmp_path / file])
        assert set(found) == {"Y", "s.f", "s.bits"}
        np.testing.assert_array_equal(found["Y"], Y)
        np.testing.assert_array_equal(found["s.bits"], Y.real > 0)
        assert found["s.f"].item() == 2.0


def test_hdf5_keeps_axes_as_stored_and_joins_compounds(tmp_path: Path) -> None:
    pairs = np.empty(Y.shape, dtype=[("re", "f4"), ("im", "f4")])
    pairs["re"], pairs["im"] = Y.real, Y.imag
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["radio/iq"], file["radio/native"] = pairs, Y
    found = read_arrays([tmp_path / "a.h5"])
    np.testing.assert_allclose(found["radio/iq"], Y, rtol=1e-6)
    np.testing.assert_array_equal(found["radio/native"], Y)


def test_numpy_files_give_what_was_saved(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", Y=Y)
    np.save(tmp_path / "b.npy", Y[0])
    found = read_arrays([tmp_path / "a.npz", tmp_path / "b.npy"])
    np.testing.assert_array_equal(found["Y"], Y)
    np.testing.assert_array_equal(found["b"], Y[0])
    assert describe_arrays(found) == ["Y [3, 4, 5] complex128", "b [4, 5] complex128"]


@pytest.mark.parametrize("unit", ["i", "j"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", " "])
def test_csv_gives_a_table_and_its_columns(tmp_path: Path, delimiter: str, unit: str) -> None:
    rows = [["Freq(Hz)", "S21"], ["1e9", f"0.5-0.25{unit}"], ["2e9", f"-1e-3+2{unit}"]]
    if delimiter == " ":
        rows[0][0] = "Freq"
    lines = ["!CSV A.01.01", "BEGIN CH1_DATA", *map(delimiter.join, rows), "END", ""]
    (tmp_path / "vna.csv").write_text("\r\n".join(lines))
    found = read_arrays([tmp_path / "vna.csv"])
    expected = np.array([[1e9, 0.5 - 0.25j], [2e9, -1e-3 + 2j]])
    np.testing.assert_array_equal(found["vna"], expected)
    np.testing.assert_array_equal(found["S21"], expected[:, 1])
    assert found[rows[0][0]].tolist() == [1e9, 2e9]


def test_a_csv_without_header_is_one_table(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "H.csv", Y[0].real, delimiter=",")
    found = read_arrays([tmp_path / "H.csv"])
    assert list(found) == ["H"]
    np.testing.assert_allclose(found["H"], Y[0].real)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", " "])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_complex_table_of_numpy_comes_back(tmp_path: Path, delimiter: str, rows: int) -> None:
    np.savetxt(tmp_path / "H.csv", Y[0, :rows], delimiter=delimiter)
    found = read_arrays([tmp_path / "H.csv"])
    assert list(found) == ["H"]
    np.testing.assert_array_equal(found["H"], Y[0, :rows])


@pytest.mark.parametrize("link", [h5py.SoftLink("/gone"), h5py.ExternalLink("gone.h5", "/Y")])
def test_links_that_lead_nowhere_are_no_arrays(tmp_path: Path, link: object) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["Y"], file["dangling"] = Y, link
    assert list(read_arrays([tmp_path / "a.h5"])) == ["Y"]


def test_links_are_arrays_under_their_own_names(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["far"] = 2 * Y
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["radio/iq"] = Y
        file["soft"], file["group"] = h5py.SoftLink("/radio/iq"), h5py.SoftLink("/radio")
        file["radio/back"] = h5py.SoftLink("/")  # leads round
        file["external"] = h5py.ExternalLink("b.h5", "/far")
    found = read_arrays([tmp_path / "a.h5"])
    assert set(found) == {"radio/iq", "soft", "group/iq", "external"}
    for name in ("soft", "group/iq"):
        np.testing.assert_array_equal(found[name], Y)
    np.testing.assert_array_equal(found["external"], 2 * Y)


@pytest.mark.parametrize("delimiter", [";", "\t", "; "])
@pytest.mark.parametrize("header", ["f;S", ""])
def test_decimal_commas_are_read_between_semicolons_and_tabs(
    tmp_path: Path, delimiter: str, header: str
) -> None:
    rows = ["1,5;-2,25e3", "3;4,5-0,5i"]
    lines = [row.replace(";", delimiter) for row in [header] * bool(header) + rows]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    expected = np.array([[1.5, -2250], [3, 4.5 - 0.5j]])
    np.testing.assert_array_equal(read_arrays([tmp_path / "a.csv"])["a"], expected)


def test_arrays_of_one_name_in_two_files_are_told_apart(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", Y=Y, only=Y)
    np.savez(tmp_path / "b.npz", Y=-Y)
    found = read_arrays([tmp_path / "a.npz", tmp_path / "b.npz"])
    assert set(found) == {"a:Y", "b:Y", "only"}
    np.testing.assert_array_equal(found["b:Y"], -Y)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.mat", b"no matlab", "readable by its ending, but .*a.mat is not"),
        ("a.mat", None, "no .*a.mat"),
        ("a.h5", b"no hdf", "a.h5 is not"),
        ("a.npz", b"no zip", r"a.npz is not \(it holds Python objects, or is no file of NumPy\)"),
        ("a.csv", b"f,S\n1,2\n1\n", "data row 2 has not 2 numbers: 1"),
        ("a.csv", b"f,S\n1,x\n", "data row 1 has not 2 numbers: 1,x"),
        ("a.csv", b"!nothing\n", "no data"),
        ("a.csv", b"f,S\n", "no data below the header"),
        ("a.csv", b"1.234,5;2,5\n", "first row is neither names nor numbers: 1.234,5"),
        ("a.csv", b"1,5 2,5\n", "first row|has not"),
        ("a.csv", b"f,S\n1,5 2,5\n", "has not 2 numbers.*between semicolons or tabs only"),
        ("a.csv", b"f,f\n1,2\n", "2 columns are called f"),
        ("a.xlsx", b"", r"must be one of \.mat, \.h5"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        read_arrays([tmp_path / name])

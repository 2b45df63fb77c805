"""OpenFOAM dictionaries: one value changes and every other byte stays, whatever else the file holds."""

import struct
import tempfile
from pathlib import Path

import carry_over
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_solvers.openfoam.dictionary import CaseError, FoamDictionary

ODD = r"""// no header
application $app; t0 0.5; startTime $t0;
lid uniform ($lidU 0 0); area #calc "3*$t0; }"; size #eval{ 2*{3} };
Cp [J/kg/K] 1000; dimensions []; old nu [0 2 -1 0 0 0 0] 0.01 /* ; } */ ;
"(in|out)let.*" { $common; value uniform 3; }
code #{ if (a) { b = "}"; } #};
divSchemes { div(phi,U) Gauss linear; div((nuEff*dev2(T(grad(U))))) Gauss linear; }
regions ( sphere { radius 1; centre (0 1 2); } box { radius 2; } );
points 3((0 0 0)(1 1 1)(2 2 2)); blocks (hex (0 1 2) (20 20 1) simpleGrading (1 1 1));
#ifeq $app icoFoam
branch 1;
#else
branch 2;
#endif
#includeFunc residuals(p, U)
last yes; // caf""" + "é\n"  # fmt: skip


def opened(folder: Path, data: bytes) -> FoamDictionary:
    (folder / "test").write_bytes(data)
    return FoamDictionary(folder / "test", "system/test")


@pytest.mark.parametrize(
    ("entry", "old"),
    [
        ("application", "$app"),
        ("startTime", "$t0"),
        ("lid.0", "$lidU"),
        ("lid.2", "0"),
        ("area", '#calc "3*$t0; }"'),
        ("size", "#eval{ 2*{3} }"),
        ("Cp.1", "1000"),
        ("old.2", "0.01"),
        ('"(in|out)let.*".value', "uniform 3"),
        ("code", '#{ if (a) { b = "}"; } #}'),
        ("divSchemes.div(phi,U)", "Gauss linear"),
        ("regions.1.radius", "2"),
        ("regions.sphere.centre.1", "1"),
        ("points.2.0", "2"),
        ("points.1", "(1 1 1)"),
        ("blocks.2.1", "20"),
        ("last", "yes"),
    ],
)
def test_only_the_bytes_of_the_value_change(tmp_path: Path, entry: str, old: str) -> None:
    data = ODD.encode("latin-1")
    contents = opened(tmp_path, data)
    assert contents.get(entry) == old
    contents.set(entry, "NEW")
    changed = contents.bytes()
    at = changed.index(b"NEW")
    assert changed[:at] + old.encode() + changed[at + 3 :] == data


@pytest.mark.parametrize(
    ("text", "entry", "trouble"),
    [
        (ODD, "branch", r"system/test line 13: 'branch' depends on '#ifeq \$app icoFoam' in line 10; move"),
        ("a { $b; }\n", "a.x", r"it may come from \$b \(line 1\): set it where it is written"),
        ('x 1;\n#include "more"\n', "x", r'line 2: #include "more" comes after \'x\' \(line 1\) and sets it again'),
        ("b { x 2; }\na { x 1; $b; }\n", "a.x", r"line 2: \$b comes after 'a.x' \(line 2\) and sets it again"),
    ],
)
def test_an_entry_that_another_line_may_decide_is_refused(tmp_path: Path, text: str, entry: str, trouble: str) -> None:
    (tmp_path / "more").write_text("x 2;\n")
    with pytest.raises(CaseError, match=trouble):
        opened(tmp_path, text.encode()).check(entry)


def test_of_two_equal_entries_the_last_is_set_because_openfoam_reads_that(tmp_path: Path) -> None:
    contents = opened(tmp_path, b"a { x 1; } a { y 2; } x 1; x 2;")
    contents.set("x", "3")
    contents.set("a.x", "4")
    assert contents.bytes() == b"a { x 4; } a { y 2; } x 1; x 3;"


def test_an_entry_and_an_element_of_it_are_not_set_together(tmp_path: Path) -> None:
    contents = opened(tmp_path, b"v uniform (1 2 3);")
    contents.set("v.0", "5")
    contents.set("v.2", "6")
    assert contents.bytes() == b"v uniform (5 2 6);"
    with pytest.raises(CaseError, match="line 1: 'v' overlaps with another entry"):
        contents.set("v", "uniform (0 0 0)")


@given(st.lists(st.floats(allow_nan=False, width=64), min_size=3, max_size=30), st.booleans())
def test_binary_fields_are_passed_over_by_their_length(values: list[float], vectors: bool) -> None:
    values = values[: len(values) // 3 * 3]
    kind, count = (b"vector", len(values) // 3) if vectors else (b"scalar", len(values))
    payload = struct.pack(f"<{len(values)}d", *values)
    head = b'FoamFile { version 2.0; format binary; arch "LSB;label=32;scalar=64"; class volScalarField; }\n'
    field = b"internalField nonuniform List<%s> \n%d\n(%s);\n" % (kind, count, payload)
    before = head + field + b"boundaryField { lid { type fixedValue; value uniform "
    with tempfile.TemporaryDirectory() as folder:
        contents = opened(Path(folder), before + b"1; } }\n")
        contents.set("boundaryField.lid.value", "uniform 2.5")
        assert contents.bytes() == before + b"2.5; } }\n"


def test_an_executable_stays_one_and_a_compressed_file_is_replaced(tmp_path: Path) -> None:
    contents = opened(tmp_path, b"x 1;")
    (tmp_path / "out.gz").write_bytes(b"old")
    contents.set("x", "2")
    contents.write(tmp_path / "out")
    assert not (tmp_path / "out.gz").exists()


@pytest.mark.openfoam
def test_the_tutorials_dictionaries_carry_over() -> None:
    counts, troubles = carry_over.survey(seed=7, sample=120, foam=25)
    assert counts["unfaithful"] == 0, troubles
    assert counts["carried over"] >= 100
    assert counts["refused"] <= 3, troubles
    assert counts["read by foamDictionary"] >= 10

"""Set one entry in each dictionary of the installed tutorials, and count what carries over byte for byte.

    .venv/bin/python tests/solver_adapters/openfoam/carry_over.py [--seed N] [--sample N] [--foam N]

The expectation does not come from the code that is tested. A number or word of the file is chosen by a regular
expression; the entry's path must lead to it, everything else must be as before, and OpenFOAM's own foamDictionary must
read the new value, for as many files as --foam says.
"""

from __future__ import annotations

import argparse
import gzip
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from penstock_solvers.openfoam.dictionary import CaseError, FoamDictionary
from penstock_solvers.openfoam.environment import openfoam_environment

TUTORIALS = Path("/usr/share/doc/openfoam-examples/examples")
LARGEST = 60_000  # bytes
NO_DICTIONARIES = {".m4", ".stl", ".obj", ".dat", ".txt", ".png", ".jpg", ".ccm", ".msh", ".inp", ".eps", ".pdf", ".py"}
NEW = "7531.25"
_ENTRY = re.compile(r"^[ \t]*(\w+)[ \t]+(\$?[-+.\w]+)[ \t]*;", re.M)  # a line "keyword value;"


def dictionaries(folder: Path) -> Iterator[Path]:
    """Find the dictionaries of the tutorials: files with a header or an entry, which are no scripts, meshes or tables."""
    for path in sorted(folder.rglob("*")):
        plain = path.with_suffix("") if path.suffix == ".gz" else path
        if path.is_file() and path.stat().st_size <= LARGEST and plain.suffix not in NO_DICTIONARIES:
            data = contents(path)
            if len(data) <= LARGEST and not data.startswith(b"#!") and is_dictionary(path, data):
                yield path


def is_dictionary(path: Path, data: bytes) -> bool:
    """Whether a file has OpenFOAM's header, or lies in a case and has an entry."""
    in_case = any(re.fullmatch(r"(0|constant|system)(\.\w+)?", part) for part in path.parts)
    faulty = path.name.startswith(("fatal-", "missed-"))  # tutorials of errors
    return not faulty and (b"FoamFile" in data or (in_case and bool(_ENTRY.search(data.decode("latin-1")))))


def contents(path: Path) -> bytes:
    """Read a file, unpacked."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def bare(data: bytes) -> str:
    """The file with comments and code blocks blanked, at the same positions."""
    text = data.decode("latin-1")
    pattern = r'#\{.*?#\}|//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"'
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m[0]) if m[0][0] != '"' else m[0], text, flags=re.S)


def change(data: bytes, folder: Path, draw: random.Random) -> tuple[str, str]:
    """Set one entry of a dictionary.

    Returns:
        The outcome ("carried over", "refused", "unfaithful" or "nothing to set") and its reason, or the entry's path.
    """
    (folder / "dictionary").write_bytes(data)
    try:
        dictionary = FoamDictionary(folder / "dictionary", "dictionary")
    except CaseError as error:
        return "refused", str(error)
    paths = [path for path in dictionary.entries() if dictionary.get(path) is None or plain(dictionary, path)]
    if not paths:
        return "nothing to set", ""
    entry = draw.choice(paths)
    try:
        dictionary.set(entry, NEW)
    except CaseError as error:
        return "refused", str(error)
    dictionary.write(folder / "changed")
    return (
        "carried over" if one_value_differs(data, (folder / "changed").read_bytes(), entry) else "unfaithful"
    ), entry


def plain(dictionary: FoamDictionary, path: str) -> bool:
    """Whether an entry is one number, word or macro."""
    return re.fullmatch(r"\$?[-+.\w]+", dictionary.get(path) or "") is not None


def one_value_differs(before: bytes, after: bytes, entry: str) -> bool:
    """Whether the only change is one value, behind the entry's keyword, outside of comments and strings."""
    pairs = zip(before, after, strict=False)
    head = next((i for i, (old, new) in enumerate(pairs) if old != new), min(len(before), len(after)))
    at = after.rfind(NEW.encode(), 0, head + len(NEW))
    tail = after[at + len(NEW) :]
    if at < 0 or not before.endswith(tail) or before[:at] != after[:at]:
        return False
    old = before[at : len(before) - len(tail)].decode("latin-1")
    text = bare(before)
    keyword = re.search(r"(\S+)\s*\Z", text[:at])
    whole = re.fullmatch(r"\$?[-+.\w]+", old) is not None and text[at : at + len(old)] == old
    return whole and re.match(r"\s*;", text[at + len(old) :]) is not None and keyword is not None and (
        entry.endswith(keyword[1].lstrip("{};")) and bool(keyword[1])
    )  # fmt: skip


def foam_reads(folder: Path, entry: str) -> str | None:
    """Ask foamDictionary for the value; None if it has no answer for the file as it was, either."""
    if re.search(r'["$]', entry):
        return None  # foamDictionary finds no patterns by their text

    def ask(name: str) -> subprocess.CompletedProcess[str]:
        command = ["foamDictionary", "-disableFunctionEntries", "-entry", entry, "-value", str(folder / name)]
        environment = openfoam_environment() | {"PWD": str(folder), "FOAM_SIGFPE": "false"}
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    if ask("dictionary").returncode != 0:
        return None
    answer = ask("changed").stdout.split()
    return answer[-1] if answer else ""


def survey(seed: int, sample: int | None, foam: int) -> tuple[Counter[str], list[str]]:
    """Change one entry in each of the tutorials' dictionaries.

    Args:
        seed: chooses the entries, and the files of a sample.
        sample: number of files; None: all.
        foam: number of files that foamDictionary reads as well.

    Returns:
        How many files had each outcome, and one line for each file that did not carry over.
    """
    draw = random.Random(seed)
    files = list(dictionaries(TUTORIALS))
    files = draw.sample(files, sample) if sample is not None else files
    asked = set(draw.sample(files, min(foam, len(files))))
    counts: Counter[str] = Counter()
    troubles: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        for path in files:
            outcome, text = change(contents(path), Path(name), draw)
            if outcome == "carried over" and path in asked:
                value = foam_reads(Path(name), text)
                counts["read by foamDictionary"] += value is not None
                outcome = outcome if value in (None, NEW) else "unfaithful"
            counts[outcome] += 1
            if outcome in ("refused", "unfaithful"):
                troubles.append(f"{outcome}: {path.relative_to(TUTORIALS)}: {text}")
    return counts, troubles


def main() -> int:
    """Print the figures; exit code 1 if a file was changed unfaithfully."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sample", type=int)
    parser.add_argument("--foam", type=int, default=400)
    arguments = parser.parse_args()
    counts, troubles = survey(arguments.seed, arguments.sample, arguments.foam)
    print("\n".join(troubles))
    tried = counts["carried over"] + counts["refused"] + counts["unfaithful"]
    print(
        f"{tried} dictionaries: {counts['carried over']} carried over ({counts['carried over'] / tried:.2%}), "
        f"{counts['refused']} refused with the line, {counts['unfaithful']} unfaithful; foamDictionary read "
        f"{counts['read by foamDictionary']} of them; {counts['nothing to set']} more have no number or word to set"
    )
    return 1 if counts["unfaithful"] else 0


if __name__ == "__main__":
    sys.exit(main())

"""Writing a simulation's parameters to the entries of its case, before and between the mesh commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from penstock_solvers.openfoam.dictionary import CaseError, FoamDictionary
from penstock_solvers.openfoam.settings import CaseSettings, Entry


def entry_problems(settings: CaseSettings, directory: Path, *, complete: bool = True) -> list[str]:
    """Check the entries that the study's parameters are written to.

    Args:
        settings: settings of the case.
        directory: a copy of the case.
        complete: False if mesh commands may still make files and entries; those that are missing are then no problem.

    Returns:
        One line per problem.
    """
    problems = [
        f"[parameters] {name} goes nowhere: expected an entry {name} = {{ file = ..., entry = ... }} in "
        "[solver.entries]"
        for name in settings.parameters
        if not settings.entries.get(name)
    ]
    for name in settings.entries:
        if name not in settings.parameters:
            expected = ", ".join(settings.parameters)
            problems.append(f"[solver.entries] {name}: there is no such parameter; expected one of {expected}")
    seen: dict[tuple[str, str], str] = {}
    for name, target in _targets(settings):
        place = f"[solver.entries] {name}"
        if (target.file, target.entry) in seen:
            other = seen[target.file, target.entry]
            problems.append(
                f"{place}: {target.file} {target.entry} is set by {other} as well; a value that depends on both cannot "
                "be written, so remove one of them or name an element of the value"
            )
        seen[target.file, target.entry] = name
        problems += [
            f"{place}: {problem}"
            for problem in _target_problems(target, directory, complete and not _of_a_mesh_to_come(target, settings))
        ]
    return problems


def _targets(settings: CaseSettings) -> Iterator[tuple[str, Entry]]:
    for name, targets in settings.entries.items():
        if name in settings.parameters:
            yield from ((name, target) for target in targets)


def _of_a_mesh_to_come(target: Entry, settings: CaseSettings) -> bool:
    return bool(settings.mesh_commands) and "polyMesh" in Path(target.file).parts


def _target_problems(target: Entry, directory: Path, complete: bool) -> Iterator[str]:
    path = directory / target.file
    try:
        if Path(target.file).is_absolute() or ".." in Path(target.file).parts:
            raise CaseError("expected a path inside the case, such as 0/U")
        if complete or _exists(path):
            FoamDictionary(path, target.file).check(target.entry)
    except CaseError as error:
        if complete or ".." in target.file or " has no entry " not in error.reason:
            yield f"file = {target.file!r}: {error.reason}{_other_files(directory, target.file)}"
    try:
        target.text(1.0)
    except ValueError as error:
        yield (
            f"value = {target.value!r} cannot be used ({error}); expected a format in which {{}} stands "
            'for the parameter, such as "uniform ({} 0 0)"'
        )


def _exists(path: Path) -> bool:
    return path.is_file() or path.with_name(path.name + ".gz").is_file()


def _other_files(directory: Path, file: str) -> str:
    folder = (directory / file).parent
    if _exists(directory / file) or not folder.is_dir():
        return ""
    names = sorted(child.name for child in folder.iterdir() if child.is_file())
    return f"; {Path(file).parent}/ has: {', '.join(names)}" if names else ""


class Writing:
    """Writes one simulation's parameters, as the files and entries appear that they go to.

    Args:
        directory: the simulation's case.
        settings: settings of the case.
        parameters: parameter values, by name.

    Raises:
        CaseError: a parameter of the study is missing from `parameters`.
    """

    def __init__(self, directory: Path, settings: CaseSettings, parameters: Mapping[str, float]) -> None:
        self._directory = directory
        self._waiting: dict[str, list[tuple[str, str]]] = {}
        self._written: list[tuple[str, str, str]] = []
        for name, target in _targets(settings):
            if name not in parameters:
                raise CaseError(
                    f"[solver.entries] {name}: the simulation has no such parameter, only {', '.join(parameters)}"
                )
            try:
                text = target.text(parameters[name])
            except ValueError as error:
                raise CaseError(f"[solver.entries] {name}: value = {target.value!r} cannot be used: {error}") from error
            self._waiting.setdefault(target.file, []).append((target.entry, text))

    def write(self) -> None:
        """Set all entries that exist and have not been set yet.

        Raises:
            CaseError: an entry is ambiguous, or its file is no dictionary.
        """
        for file in list(self._waiting):
            if _exists(self._directory / file):
                self._set(file, self._waiting.pop(file), missing_is_an_error=False)

    def finish(self) -> None:
        """Set the remaining entries, and those of files that a mesh command has written again.

        Raises:
            CaseError: an entry does not exist.
        """
        for file, changes in self._waiting.items():
            self._set(file, changes, missing_is_an_error=True)
        self._waiting = {}
        lost: dict[str, list[tuple[str, str]]] = {}
        for file, entry, text in self._written:
            now = FoamDictionary(self._directory / file, file).get(entry)
            # A tool such as setFields makes a nonuniform field of the value that was written; that stays.
            if now is None or (_words(now) != _words(text) and not now.startswith("nonuniform")):
                lost.setdefault(file, []).append((entry, text))
        for file, changes in lost.items():
            self._set(file, changes, missing_is_an_error=True)

    def _set(self, file: str, changes: list[tuple[str, str]], *, missing_is_an_error: bool) -> None:
        dictionary = FoamDictionary(self._directory / file, file)
        for entry, text in changes:
            try:
                dictionary.set(entry, text)
            except CaseError as error:
                if missing_is_an_error or " has no entry " not in error.reason:
                    raise
                self._waiting.setdefault(file, []).append((entry, text))
            else:
                self._written.append((file, entry, text))
        dictionary.write(self._directory / file)


def _words(text: str) -> list[str]:
    words: list[str] = []
    for word in text.replace("(", " ( ").replace(")", " ) ").split():
        try:
            words.append(f"{float(word):.5g}")  # a tool may have written fewer digits
        except ValueError:
            words.append(word)
    return words

"""Building the function object `penstockStream`, with libpenstock inside it, for the OpenFOAM of this machine.

There are two ways. An OpenFOAM with its sources and its build tool (WM_PROJECT_DIR contains src/ and wmake/) builds it
with `wmake` into FOAM_USER_LIBBIN. The package of Debian and Ubuntu has neither; for it, the headers of the installed
version are downloaded once from the distribution's source package, without root.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import penstock_client
from penstock_client.atomic_file import replacing
from penstock_client.errors import PenstockError
from penstock_solvers.openfoam.debian_sources import SourcesMissing, fetch_source
from penstock_solvers.openfoam.environment import INSTALL, OpenFOAMMissing, openfoam_environment

LIBRARY = "libpenstockStream.so"
_HEADERS = ("OpenFOAM", "OSspecific/POSIX", "finiteVolume", "meshTools", "surfMesh", "fileFormats")
_TOOLS = "apt-get install g++ pkg-config libzmq3-dev"
# libpenstock's own names stay inside the library, so that a solver may link another libpenstock.
_EXPORTED, _LOCAL_NAMES = "exported.map", "{ local: penstock_*; pnsk_*; };\n"
_PACKAGE = Path(__file__).resolve().parent.parent  # penstock_solvers


class OpenFOAMBuildError(PenstockError):
    """The function object cannot be built: something is missing, or the compiler reports an error."""


def build(
    destination: Path | None = None,
    log: Callable[[str], None] = print,
    openfoam: Path | None = None,
    flags: Sequence[str] = (),
) -> Path:
    """Build the function object's library.

    Args:
        destination: folder for the library; default: FOAM_USER_LIBBIN if OpenFOAM has wmake, else Penstock's cache
            (XDG_CACHE_HOME/penstock/openfoam-VERSION/lib), where `library_path` finds it.
        log: called with a line of text for each stage.
        openfoam: folder of the OpenFOAM to build for; its etc/bashrc is sourced. Default: the one of this environment.
        flags: further flags for compilers and linker, such as -fsanitize=address.

    Returns:
        Path of the library.

    Raises:
        OpenFOAMBuildError: something is missing, or the compiler reports an error. The text names the command that
            installs what is missing, or quotes the compiler.
    """
    environment = _environment() if openfoam is None else _sourced(openfoam)
    _require(environment)
    site = _wmake_site(environment)
    if site is None:
        return _build_on_debian(_target(environment, destination), environment, log, flags)
    log(f"building with the wmake of {site}")
    return _build_with_wmake(_target(environment, destination), environment, flags)


def library_path() -> Path | None:
    """Return the path of the library for the OpenFOAM of this environment, or None if it has not been built."""
    try:
        library = _target(_environment(), None) / LIBRARY
    except OpenFOAMBuildError:
        return None
    return library if library.is_file() else None


def sources() -> list[Path]:
    """Find the C and C++ sources of the library, in a checkout or in the installed package.

    Raises:
        OpenFOAMBuildError: the sources are missing.
    """
    client = Path(penstock_client.__file__).resolve().parent
    for c, openfoam in (
        (client.parent / "c", _PACKAGE.parent / "openfoam"),
        (client / "c_source", _PACKAGE / "openfoam_source"),
    ):
        if (c / "penstock.c").is_file() and (openfoam / "penstockStream.C").is_file():
            return sorted(
                p for folder in (c, openfoam) for p in folder.iterdir() if p.suffix in (".c", ".h", ".C", ".H")
            )
    raise OpenFOAMBuildError(
        f"the sources of the function object are neither beside {client} nor in it: install penstock again"
    )


def _environment() -> dict[str, str]:
    try:
        return openfoam_environment()
    except OpenFOAMMissing as error:
        raise OpenFOAMBuildError(str(error)) from error


def _sourced(site: Path) -> dict[str, str]:
    """Return the environment that etc/bashrc of an OpenFOAM sets."""
    bashrc = site.resolve() / "etc" / "bashrc"
    if not bashrc.is_file():
        raise OpenFOAMBuildError(f"{site} is not an OpenFOAM: it has no etc/bashrc; give the folder that has it")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WM_", "FOAM_"))}
    done = subprocess.run(
        ["bash", "-c", '. "$1" >/dev/null 2>&1; env -0', "bash", str(bashrc)],
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    lines = [line.partition("=") for line in done.stdout.decode(errors="surrogateescape").split("\0") if "=" in line]
    environment = {name: value for name, _, value in lines}
    if Path(environment.get("WM_PROJECT_DIR", "")).resolve() != site.resolve():
        found = environment.get("WM_PROJECT_DIR", "nothing")
        raise OpenFOAMBuildError(
            f"{bashrc} sets WM_PROJECT_DIR = {found}, expected {site.resolve()}: was this OpenFOAM moved after it was "
            "installed?"
        )
    return environment


def _wmake_site(environment: Mapping[str, str]) -> Path | None:
    """Return the folder of OpenFOAM if it has its sources and wmake, else None."""
    site = Path(environment["WM_PROJECT_DIR"])
    return site if (site / "wmake" / "wmake").is_file() and (site / "src" / "finiteVolume").is_dir() else None


def _target(environment: Mapping[str, str], destination: Path | None) -> Path:
    if destination is not None:
        return destination.resolve()
    if _wmake_site(environment) is not None:
        folder = environment.get("FOAM_USER_LIBBIN")
        if not folder:
            raise OpenFOAMBuildError(
                f"FOAM_USER_LIBBIN is not set: source {environment['WM_PROJECT_DIR']}/etc/bashrc, or give a destination"
            )
        return Path(folder)
    return _cache(environment) / "lib"


def _cache(environment: Mapping[str, str]) -> Path:
    base = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "penstock" / f"openfoam-{environment.get('WM_PROJECT_VERSION', 'unknown')}"


def _require(environment: Mapping[str, str]) -> None:
    """Check that a C++ compiler and libzmq's headers are installed."""
    search = environment.get("PATH", os.defpath)
    missing = [tool for tool in ("gcc", "g++", "pkg-config") if shutil.which(tool, path=search) is None]
    if missing:
        raise OpenFOAMBuildError(f"{', '.join(missing)} not found on PATH; on Debian or Ubuntu: {_TOOLS}")
    found = _run(["pkg-config", "--atleast-version=4.3", "libzmq"], environment)
    if found.returncode:
        raise OpenFOAMBuildError(
            f"libzmq 4.3 or later and its headers are not installed; on Debian or Ubuntu: {_TOOLS}"
        )


def _run(
    command: Sequence[str | Path], environment: Mapping[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        env=dict(environment),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _must_run(command: Sequence[str | Path], environment: Mapping[str, str], cwd: Path) -> str:
    done = _run(command, environment, cwd)
    if done.returncode:
        raise OpenFOAMBuildError(
            f"{command[0]} failed with exit code {done.returncode} while building {LIBRARY}:\n"
            f"{done.stdout[-4000:].rstrip()}"
        )
    return done.stdout


def _install(built: Path, folder: Path) -> Path:
    """Put the library in its place in one step: a solver that is being started sees the old one or the new one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / LIBRARY) as temporary:
            shutil.copyfile(built, temporary)
            temporary.chmod(0o755)
        return folder / LIBRARY
    except OSError as error:
        raise OpenFOAMBuildError(
            f"cannot write {folder / LIBRARY} ({error.strerror}): give another destination"
        ) from error


def _build_with_wmake(folder: Path, environment: Mapping[str, str], flags: Sequence[str]) -> Path:
    with tempfile.TemporaryDirectory(prefix="penstock-wmake-") as scratch:
        work = Path(scratch)
        for source in sources():
            shutil.copy(source, work)
        stream = next(s for s in sources() if s.name == "penstockStream.C")
        shutil.copytree(stream.parent / "Make", work / "Make")
        (work / _EXPORTED).write_text(_LOCAL_NAMES)
        site = Path(environment["WM_PROJECT_DIR"])
        wmake = {**environment, "PENSTOCK_LIBBIN": str(work), "WM_DIR": str(site / "wmake")}
        wmake["PENSTOCK_FLAGS"] = " ".join(flags)
        wmake["PATH"] = f"{site / 'wmake'}{os.pathsep}{environment.get('PATH', os.defpath)}"
        output = _must_run([site / "wmake" / "wmake", "libso"], wmake, work)
        if not (work / LIBRARY).is_file():
            raise OpenFOAMBuildError(f"wmake made no {LIBRARY}; its output:\n{output[-4000:].rstrip()}")
        return _install(work / LIBRARY, folder)


def _build_on_debian(
    folder: Path, environment: Mapping[str, str], log: Callable[[str], None], flags: Sequence[str]
) -> Path:
    includes = _headers(_cache(environment), environment, log)
    release = re.sub(r"\D", "", environment.get("WM_PROJECT_VERSION", "")) or "1912"
    zmq = _must_run(["pkg-config", "--cflags", "--libs", "libzmq"], environment, Path.cwd()).split()
    zmq_flags, zmq_libraries = [f for f in zmq if f.startswith("-I")], [f for f in zmq if f.startswith(("-l", "-L"))]
    common = ["-O2", "-g", "-fPIC", "-pthread", *zmq_flags, *flags]
    # The package is built in double precision with 32-bit labels. No -Wall: OpenFOAM's own headers cause warnings.
    cpp = ["-std=c++11", f"-DOPENFOAM={release}", "-DWM_DP", "-DWM_LABEL_SIZE=32", "-Dlinux64", "-DWM_ARCH_OPTION=64"]
    cpp += ["-DNoRepository", "-ftemplate-depth-100", *(f"-I{include}" for include in includes)]
    log(f"compiling {LIBRARY}")
    with tempfile.TemporaryDirectory(prefix="penstock-build-") as scratch:
        work, files = Path(scratch), sources()
        library = next(file for file in files if file.name == "penstock.h").parent
        compilers: dict[str, list[str | Path]] = {
            ".c": ["gcc", "-std=c11", "-D_POSIX_C_SOURCE=200809L", *common],
            ".C": ["g++", *common, *cpp, f"-I{library}"],
        }
        commands = [[*compilers[file.suffix], "-c", file] for file in files if file.suffix in compilers]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda command: _must_run(command, environment, work), commands))
        objects = sorted(work.glob("*.o"))
        (work / _EXPORTED).write_text(_LOCAL_NAMES)
        link: list[str | Path] = [
            "g++",
            "-shared",
            "-pthread",
            *flags,
            f"-Wl,--version-script={_EXPORTED}",
            *objects,
            *zmq_libraries,
        ]
        _must_run([*link, "-o", LIBRARY], environment, work)
        return _install(work / LIBRARY, folder)


def _headers(cache: Path, environment: Mapping[str, str], log: Callable[[str], None]) -> list[Path]:
    """Return the include folders of the installed OpenFOAM, after downloading its source package if necessary."""
    found = _run(["dpkg-query", "-W", "-f", "${source:Package}=${source:Version}", "libopenfoam"], environment)
    if found.returncode:
        raise OpenFOAMBuildError(
            f"{environment['WM_PROJECT_DIR']} has no wmake and no src, and is not Debian's package either; {INSTALL}"
        )
    version = hashlib.sha256(found.stdout.encode()).hexdigest()[:12]
    headers = cache / f"headers-{version}"
    if not headers.is_dir():
        log(f"fetching the headers of {found.stdout} (its source package, about 50 MB, once)")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="penstock-headers-", dir=cache) as scratch:
            try:
                tree = fetch_source(found.stdout, [*(f"src/{part}" for part in _HEADERS), "wmake"], Path(scratch))
            except SourcesMissing as error:
                raise OpenFOAMBuildError(str(error)) from error
            link = tree / "wmake" / "wmakeLnInclude"
            for part in _HEADERS:
                _must_run(["sh", link, "-s", tree / "src" / part], {**environment, "WM_DIR": str(tree / "wmake")}, tree)
            try:
                tree.rename(headers)
            except OSError:  # another process may have created them meanwhile
                if not headers.is_dir():
                    raise
    return [headers / "src" / part / "lnInclude" for part in _HEADERS]

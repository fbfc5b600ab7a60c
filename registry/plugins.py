"""Plug-ins: files and modules that the user names, and installed packages with a ``gauntlet.plugins`` entry point."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from .errors import GauntletError
from .files_read import noting_reads
from .registry import Registry, current_plugin

_loaded: dict[str, str] = {}


def load_plugins(names: Iterable[str], registries: Iterable[Registry]) -> list[str]:
    """Import every plug-in; one that fails is rolled back and reported, and the others still load.

    Args:
        names: Paths of ``.py`` files or names of importable modules.
        registries: Where the plug-ins register, for the roll-back.

    Returns:
        One sentence for each plug-in that failed.
    """
    registries = list(registries)
    problems = []
    for name in names:
        try:
            load_plugin(name, registries)
        except GauntletError as error:
            problems.append(str(error))
    return problems


def load_plugin(name: str, registries: Iterable[Registry]) -> str:
    """Import one plug-in and return its identity; loading an unchanged file again does nothing.

    Raises:
        GauntletError: It does not exist, or its code raised; the message has file and line.
    """
    registries = list(registries)
    is_file = name.endswith(".py") or Path(name).is_file()
    identity, version = _identify_file(name) if is_file else (name, "module")
    if _loaded.get(identity) == version:
        return identity
    if identity in _loaded:
        _forget(identity, registries)
    if is_file and (imported := _imported(Path(identity))):  # another plug-in, or the running script, was faster
        for registry in registries:
            registry.adopt(imported, identity)
        _loaded[identity] = version
        return identity
    token = current_plugin.set(identity)
    try:
        with noting_reads():
            _import_file(Path(identity)) if is_file else importlib.import_module(name)
    except (Exception, SystemExit) as error:
        _forget(identity, registries)
        raise GauntletError(_describe(name, error)) from error
    finally:
        current_plugin.reset(token)
    _loaded[identity] = version
    return identity


def load_entry_points(registries: Iterable[Registry]) -> list[str]:
    """Load the plug-ins of installed packages; returns one sentence for each that failed."""
    from importlib.metadata import entry_points

    return load_plugins([point.module for point in entry_points(group="gauntlet.plugins")], registries)


def _identify_file(name: str) -> tuple[str, str]:
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise GauntletError(_absent(name))
    return str(path), hashlib.sha256(path.read_bytes()).hexdigest()


def _import_file(path: Path) -> None:
    # The user's repository may have a package called `models` of its own: its folder goes first on the path, and
    # Gauntlet's own packages are never importable under such bare names.
    folder = str(path.parent)
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
    module_name = f"gauntlet_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise GauntletError("it is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    if path.stem.isidentifier():  # by which another plug-in imports it
        sys.modules.setdefault(path.stem, module)


def _imported(path: Path) -> list[str]:
    """Names of the modules that were made of a file."""
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    return [name for name, file in files.items() if file and file.endswith(path.name) and Path(file).resolve() == path]


def _forget(identity: str, registries: list[Registry]) -> None:
    """Undo what a plug-in registered, and unload its modules that did, so that they register again when imported."""
    _loaded.pop(identity, None)
    for name in _imported(Path(identity)):
        if name != "__main__":
            del sys.modules[name]
    for registry in registries:
        for entry in registry.remove_plugin(identity):
            module = getattr(entry.factory, "__module__", "")
            if module.startswith(f"{identity}.") or _found_in(Path(identity).parent, module):
                sys.modules.pop(module, None)


def _found_in(folder: Path, module: str) -> bool:
    """Whether a module was imported from ``folder`` as an entry of ``sys.path``."""
    file = getattr(sys.modules.get(module), "__file__", None)
    stem = folder.joinpath(*module.split("."))
    return file is not None and Path(file) in (stem.parent / f"{stem.name}.py", stem / "__init__.py")


def _absent(name: str) -> str:
    file = Path(f"{name}.py")
    right = f"did you mean {str(file)!r}?" if file.is_file() else "give the path of a .py file or the name of a module."
    return f"Plug-in {name!r} does not exist: {right}"


def _describe(name: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name in (name, name.partition(".")[0]):
        return _absent(name)
    start = f"Plug-in {name!r} did not load: "
    if isinstance(error, SyntaxError) and error.filename:
        return f"{start}{error.filename}:{error.lineno}: SyntaxError: {error.msg}"
    what = str(error) if isinstance(error, GauntletError) else f"{type(error).__name__}: {error}"
    return start + _where(error) + what.partition("\n")[0]


def _where(error: BaseException) -> str:
    """``file:line: `` of the plug-in's own innermost frame; empty if none of its code ran."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen") and frame.filename != importlib.__file__
    ]
    theirs = [frame for frame in frames if Path(frame.filename).parent != Path(__file__).parent]
    if not theirs:
        return ""
    home = Path(theirs[0].filename).parent  # the plug-in runs first, whatever it calls into then
    own = [frame for frame in theirs if _is_own(Path(frame.filename), home)]
    return f"{own[-1].filename}:{own[-1].lineno}: "


def _is_own(file: Path, home: Path) -> bool:
    return file.is_relative_to(home) and "site-packages" not in file.relative_to(home).parts

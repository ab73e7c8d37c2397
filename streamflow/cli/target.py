"""Finds the pipeline that a command line names: ``module:name`` or ``path/to/file.py:name``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from streamflow.errors import ConfigurationError, shorten
from streamflow.graph import Pipeline, Stream


def find_pipeline(target: str) -> Pipeline[Any]:
    """Import the module or run the file, and take the pipeline of that name.

    The name may be dotted, and may be that of a function that returns a pipeline when it is called without arguments.
    The current folder is importable, and so is that of a file. Raises `ConfigurationError` that says what is missing.
    """
    place, _, name = target.rpartition(":")
    if not place:
        module = _load(target)
        raise ConfigurationError(f"which pipeline of {target!r}? {_candidates(module, target)}")
    module = _load(place)
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ConfigurationError(f"{place!r} has no {name!r}. {_candidates(module, place)}") from None
    if callable(found) and not isinstance(found, Pipeline | Stream):
        try:
            found = found()
        except Exception as error:
            raise ConfigurationError(f"calling {target} failed{_where(error)}: {_what(error)}") from error
    if isinstance(found, Stream):
        raise ConfigurationError(f"{target} is a stream without a sink: close it with .to(sink)")
    if not isinstance(found, Pipeline):
        raise ConfigurationError(
            f"{target} is no pipeline, but {shorten(found)}. {_candidates(module, place)}"
        )
    return found


def _load(place: str) -> ModuleType:
    if place.endswith(".py"):
        return _run_file(place)
    _make_importable(Path.cwd())
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if place == missing or place.startswith(f"{missing}."):
            hint = f"; for a file, say {place}.py" if Path(f"{place}.py").is_file() else ""
            raise ConfigurationError(
                f"there is no module {missing!r}, neither in {Path.cwd()} nor installed{hint}"
            ) from None
        raise ConfigurationError(f"importing {place!r} failed{_where(error)}: {_what(error)}") from error
    except Exception as error:
        raise ConfigurationError(f"importing {place!r} failed{_where(error)}: {_what(error)}") from error


def _run_file(place: str) -> ModuleType:
    path = Path(place)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigurationError(f"there is no file {place}")
    # As `python file.py` does it. Worker processes then import it under this name.
    _make_importable(path.parent.resolve())
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigurationError(f"running {place} failed{_where(error)}: {_what(error)}") from error
    return module


def _make_importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _candidates(module: ModuleType, place: str) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, Pipeline)]
    if not names:
        return "It has no pipeline at its top level"
    return f"It has {', '.join(f'{place}:{name}' for name in names)}"


def _where(error: BaseException) -> str:
    """The line of the user's that raised it."""
    if isinstance(error, SyntaxError):
        return f" at {error.filename}:{error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames[1:] else ""


def _what(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

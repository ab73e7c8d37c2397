"""Settings of a service, from the environment and from files: what `streamflow.run` and `App` read when they start."""

from __future__ import annotations

import os
from typing import Any

from attrs import Attribute, evolve, field, frozen

from streamflow.errors import ConfigurationError
from streamflow.policies import seconds

LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("console", "json")


def _lower(value: object) -> str:
    return str(value).lower()


def _one_of(*allowed: str) -> Any:
    def check(_: Any, attribute: Attribute[str], value: str) -> None:
        if value not in allowed:
            raise ConfigurationError(f"{attribute.name} must be one of {', '.join(allowed)}, not {value!r}")

    return check


def _duration(_: Any, attribute: Attribute[float], value: float) -> None:
    seconds(value, attribute.name, zero=True)


@frozen
class Settings:
    """How a service runs. Each setting is read from ``STREAMFLOW_<NAME>``, or from a TOML file, or has a default.

    ``STREAMFLOW_SETTINGS`` names files (separated by ``:``) with a table ``[streamflow]``; the environment overrules
    them. Derive from this class (attrs, frozen) to add settings of your own, and give an instance as ``settings=``.
    """

    servers: tuple[str, ...] = ()
    """NATS servers for connectors that name none: URLs, separated by commas. Default: ``NATS_URL``, the same way;
    without it, connectors use their own default."""
    log_level: str = field(default="info", converter=_lower, validator=_one_of(*LOG_LEVELS))
    """``debug``, ``info``, ``warning`` or ``error``. At ``debug``, a failure is logged with its traceback."""
    log_format: str = field(default="console", converter=_lower, validator=_one_of(*LOG_FORMATS))
    """``console`` for people, ``json`` for machines. Logs go to standard error."""
    drain_timeout: float = field(default=10.0, validator=_duration)
    """How many seconds a pipeline may take to finish what is in flight, once it was told to end."""


def load() -> Settings:
    """Read the settings; raises `ConfigurationError` that names the one at fault."""
    import typed_settings
    from typed_settings.converters import TSConverter

    loaders = typed_settings.default_loaders("streamflow")
    try:
        settings = typed_settings.load_settings(Settings, loaders, converter=TSConverter(strlist_sep=_split))
    except (typed_settings.exceptions.TsError, OSError) as error:
        raise ConfigurationError(f"settings of streamflow: {_first(error)}") from error
    if settings.servers:
        return settings
    return evolve(settings, servers=tuple(_split(os.environ.get("NATS_URL", ""))))


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

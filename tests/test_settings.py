"""Settings from the environment and from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamflow import ConfigurationError
from streamflow.settings import Settings, load


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVERS", "LOG_LEVEL", "LOG_FORMAT", "DRAIN_TIMEOUT", "SETTINGS"):
        monkeypatch.delenv(f"STREAMFLOW_{name}", raising=False)
    monkeypatch.delenv("NATS_URL", raising=False)


def test_without_any_the_defaults_hold() -> None:
    assert load() == Settings(servers=(), log_level="info", log_format="console", drain_timeout=10.0)


def test_the_environment_sets_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFLOW_SERVERS", "nats://one:4222, nats://two:4222")
    monkeypatch.setenv("STREAMFLOW_LOG_LEVEL", "WARNING")
    monkeypatch.setenv("STREAMFLOW_LOG_FORMAT", "json")
    monkeypatch.setenv("STREAMFLOW_DRAIN_TIMEOUT", "2.5")
    assert load() == Settings(("nats://one:4222", "nats://two:4222"), "warning", "json", 2.5)


def test_nats_url_stands_in_for_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", "nats://three:4222,nats://four:4222")
    assert load().servers == ("nats://three:4222", "nats://four:4222")
    monkeypatch.setenv("STREAMFLOW_SERVERS", "nats://one:4222")
    assert load().servers == ("nats://one:4222",)


def test_the_environment_overrules_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "service.toml"
    file.write_text('[streamflow]\nservers = ["nats://file:4222"]\nlog-level = "error"\ndrain_timeout = 3\n')
    monkeypatch.setenv("STREAMFLOW_SETTINGS", str(file))
    monkeypatch.setenv("STREAMFLOW_LOG_LEVEL", "debug")
    assert load() == Settings(("nats://file:4222",), "debug", "console", 3.0)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("LOG_LEVEL", "loud", "log_level must be one of debug, info, warning, error, not 'loud'"),
        ("LOG_FORMAT", "xml", "log_format must be one of console, json, not 'xml'"),
        ("DRAIN_TIMEOUT", "soon", "'soon' for option 'drain_timeout'"),
        ("DRAIN_TIMEOUT", "-1", "drain_timeout must be zero or more"),
        ("SETTINGS", "!/missing.toml", "/missing.toml"),
    ],
)
def test_nonsense_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str) -> None:
    monkeypatch.setenv(f"STREAMFLOW_{name}", value)
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_setting_in_a_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "service.toml").write_text("[streamflow]\ncolour = 1\n")
    monkeypatch.setenv("STREAMFLOW_SETTINGS", str(tmp_path / "service.toml"))
    with pytest.raises(ConfigurationError, match="colour"):
        load()

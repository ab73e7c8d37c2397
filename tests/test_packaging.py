"""What is in the artifacts that users install, and what importing the package costs them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.repository import ROOT, tracked_files

# Kept out of the sdist on purpose: what only a checkout uses, and the links, which would shadow the real folders.
CHECKOUT_ONLY = {".ci", ".github", ".pre-commit-config.yaml", "changes", "connectors", "operators"}

# Imported only when used, so that importing streamflow stays about as cheap as importing attrs and asyncio.
LAZY = ["nats", "google.protobuf", "opentelemetry", "click", "rich"]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel built from that sdist, as a release would make them.

    Built from a copy of the tracked files, so that nothing lying about in the working tree gets in, and without
    isolation, so that no network is needed.
    """
    copy = tmp_path_factory.mktemp("checkout")
    for name in tracked_files():
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(copy)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return out


@pytest.fixture(scope="module")
def wheel(artifacts: Path) -> set[str]:
    """The files in the wheel."""
    (path,) = artifacts.glob("nats_streamflow-*.whl")
    return set(zipfile.ZipFile(path).namelist())


@pytest.fixture(scope="module")
def sdist(artifacts: Path) -> dict[str, tarfile.TarInfo]:
    """The members of the sdist by their path below its top folder."""
    (path,) = artifacts.glob("nats_streamflow-*.tar.gz")
    with tarfile.open(path) as archive:
        return {member.name.partition("/")[2]: member for member in archive.getmembers()}


def test_the_wheel_holds_every_file_of_the_package(wheel: set[str]) -> None:
    package = {name for name in tracked_files() if name.startswith("streamflow/")}
    assert {"streamflow/py.typed", "streamflow/__init__.py"} <= package
    # Named, because hatchling drops exactly these when it walks through the root links.
    for folder in ("connectors", "operators"):
        assert f"streamflow/{folder}/__init__.py" in package
    assert package - wheel == set()


def test_the_wheel_holds_the_licence_and_the_data_of_the_demo(wheel: set[str]) -> None:
    assert "streamflow/cli/data/flights.csv.gz" in wheel
    assert "streamflow/cli/data/README.md" in wheel  # the source and licence of the data
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel)


def test_the_wheel_installs_nothing_but_the_package(wheel: set[str]) -> None:
    top = {name.partition("/")[0] for name in wheel}
    assert {name for name in top if not name.endswith(".dist-info")} == {"streamflow"}
    assert "streamflow/cli/data/extract.py" not in wheel


def test_the_sdist_holds_all_that_does_not_belong_to_a_checkout_only(
    sdist: dict[str, tarfile.TarInfo],
) -> None:
    expected = {name for name in tracked_files() if name.partition("/")[0] not in CHECKOUT_ONLY}
    assert expected - sdist.keys() == set()


def test_the_sdist_holds_no_link_and_nothing_of_a_checkout_only(sdist: dict[str, tarfile.TarInfo]) -> None:
    assert [name for name, member in sdist.items() if not member.isfile()] == []
    assert {name.partition("/")[0] for name in sdist} & CHECKOUT_ONLY == set()


def test_importing_streamflow_imports_no_heavy_dependency() -> None:
    code = f"import sys, streamflow; print(*(name for name in {LAZY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [], "")

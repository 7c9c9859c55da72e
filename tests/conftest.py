"""Fixtures shared by all tests; outside data is reached through environment variables only."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    return Path(value)


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Folder with outputs of the reference implementations."""
    return _folder("HRNET_GOLDEN")


@pytest.fixture(scope="session")
def golden_photos() -> Path:
    """Folder with the four photos the reference outputs speak of."""
    return _folder("HRNET_GOLDEN_PHOTOS")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder with coco-mini, lspet, hands-tiny and animals-tiny."""
    return _folder("HRNET_TEST_DATA")


@pytest.fixture(scope="session")
def test_weights() -> Path:
    """Folder with real YOLO detector files."""
    return _folder("HRNET_TEST_WEIGHTS")


@pytest.fixture(scope="session")
def test_media() -> Path:
    """Folder with real videos."""
    return _folder("HRNET_TEST_MEDIA")


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Any]:
    """Load a reference file by name: ``.npz`` as a dict of arrays, ``.json`` as it is.

    Taken from the folder in ``HRNET_GOLDEN``; without it from the part of the set in tests/data.
    """
    own = Path(__file__).parent / "data" / "golden"

    def load(name: str) -> Any:
        variable_is_set = bool(os.environ.get("HRNET_GOLDEN"))
        path = own / name
        if variable_is_set or not path.exists():
            path = _folder("HRNET_GOLDEN") / name
        if path.suffix == ".json":
            return json.loads(path.read_text(encoding="utf-8"))
        with np.load(path) as arrays:
            return {key: arrays[key] for key in arrays.files}

    return load


@pytest.fixture
def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests cache out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HRNET_HOME", str(tmp_path_factory.mktemp("cache")))
        yield

"""Packages of the extras: named when they are missing, and quiet when they are imported."""

import os
import sys

import pytest

from hrnet_cli.errors import ExitCode, UsageError
from hrnet_cli.optional_packages import (
    EXTRAS,
    can_be_imported,
    check_installed,
    import_quietly,
    is_installed,
    nothing_sent,
)


def test_what_is_installed_is_told_without_importing(monkeypatch):
    assert is_installed("numpy")
    assert not is_installed("no_such_package")
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert not is_installed("numpy")


@pytest.mark.parametrize(("package", "extra"), EXTRAS.items())
def test_a_missing_package_is_named_with_its_extra(monkeypatch, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    for ask in (check_installed, import_quietly):
        with pytest.raises(UsageError) as caught:
            ask(package, "it")
        assert caught.value.message == f"it needs the package {package}, which is not installed"
        assert caught.value.hint == f"pip install 'hrnet-cli[{extra}]'"
        assert caught.value.exit_code == ExitCode.USAGE


def test_a_package_that_is_there_but_broken_is_told_from_a_missing_one(
    tmp_path, monkeypatch, caplog
):
    (tmp_path / "nncf").mkdir()
    (tmp_path / "nncf" / "__init__.py").write_text("raise ImportError('libtbb.so.12: not found')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nncf", raising=False)
    with pytest.raises(UsageError) as caught:
        import_quietly("nncf", "it")
    assert caught.value.message == (
        "it needs the package nncf, which is installed but cannot be imported: libtbb.so.12: not"
        " found"
    )
    assert caught.value.hint == "pip install --force-reinstall nncf"
    assert not can_be_imported("nncf")
    assert "package nncf is left out, it cannot be imported: libtbb.so.12" in caplog.text
    assert not can_be_imported("no_such_package")
    assert can_be_imported("json")


def test_reports_are_off_and_the_sender_is_left_to_others(monkeypatch):
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    with nothing_sent():
        assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
        with pytest.raises(ImportError):
            import openvino_telemetry  # noqa: F401
    assert "openvino_telemetry" not in sys.modules
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    with nothing_sent():
        assert "ORT_DISABLE_TELEMETRY" in os.environ
    assert "ORT_DISABLE_TELEMETRY" not in os.environ


def test_a_sender_that_was_imported_before_stays(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino_telemetry", sys)
    with nothing_sent():
        assert sys.modules["openvino_telemetry"] is sys
    assert sys.modules["openvino_telemetry"] is sys

"""What is said when a model is opened for arithmetic that this machine has not."""

import logging

import pytest

from exported_models import save_checkpoint
from hrnet_cli import model_opening
from hrnet_cli.runtimes import Computing


@pytest.mark.parametrize(("has_bf16", "warnings"), [(False, 1), (True, 0)])
def test_bf16_without_hardware_is_said_to_be_slow(
    tmp_path, monkeypatch, caplog, has_bf16, warnings
):
    path = save_checkpoint(tmp_path / "tiny.safetensors")
    monkeypatch.setattr(model_opening, "cpu_has_bf16", lambda: has_bf16)
    with caplog.at_level(logging.WARNING):
        opened = model_opening.open_model(path, None, Computing("cpu", "torch", "bf16"))
    assert opened.precision == "bf16"
    assert (
        caplog.messages
        == ["this processor has no bf16 arithmetic: bf16 takes longer here than fp32"] * warnings
    )

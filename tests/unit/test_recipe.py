"""Recipes: the shipped ones, strict reading, and what is written back."""

import math
import tomllib
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrnet_cli.config import CODECS
from hrnet_cli.errors import ConfigError, ExitCode
from hrnet_cli.loss import LOSSES
from hrnet_cli.recipe import (
    BATCH_NORMS,
    CACHES,
    METRICS,
    PRECISIONS,
    RECIPE_FOLDER,
    RECIPES,
    SCHEDULES,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
    config_to_toml,
    load_config,
)


def failure(*arguments, **options):
    with pytest.raises(ConfigError) as raised:
        load_config(*arguments, **options)
    assert raised.value.exit_code == ExitCode.CONFIG
    return raised.value.message, raised.value.hint


def write(folder, text):
    path = folder / "my.toml"
    path.write_text(text, encoding="utf-8")
    return path


# ---------------------------------------------------------------- shipped recipes


def test_every_file_is_a_listed_recipe_or_the_data_of_one():
    files = {path.name for path in RECIPE_FOLDER.glob("*.toml")}
    recipes = {f"{name}.toml" for name in RECIPES}
    assert recipes <= files
    data = [load_config(name).data for name in RECIPES]
    named = {Path(name).name for part in data for name in (part.train, part.val, *part.extra)}
    assert files - recipes <= named


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_load_and_say_how_they_are_run(name):
    assert isinstance(load_config(name), TrainConfig)
    comment = (RECIPE_FOLDER / f"{name}.toml").read_text(encoding="utf-8").split("\n[")[0]
    assert "#   hrnet train --" in comment or "#   hrnet fine-tune --" in comment


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_a_round_trip(name, tmp_path):
    config = load_config(name)
    assert load_config(str(write(tmp_path, config_to_toml(config)))) == config


def test_the_defaults_are_the_official_recipe():
    assert load_config("official") == load_config() == TrainConfig()
    # experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml of the authors.
    official = TrainConfig()
    assert official.optimizer.learning_rate == 1e-3
    assert official.optimizer.weight_decay == 0
    assert (official.optimizer.epochs, official.optimizer.milestones) == (210, (170, 200))
    assert (official.augment.scale, official.augment.rotation_deg) == (0.35, 45)
    assert (official.augment.half_body_prob, official.augment.half_body_min) == (0.3, 8)


def test_mmpose_has_its_own_augmentation_rate_and_loss():
    config = load_config("mmpose")
    assert (config.augment.distribution, config.augment.rotation_deg) == ("truncated", 80)
    assert config.optimizer.loss == "keypoint-mse"
    assert config.learning_rate(512) == 5e-4


@pytest.mark.parametrize(
    ("width", "input_hw", "sigma", "batch"),
    [
        (32, (256, 192), 2, 128),
        (32, (384, 288), 3, 128),
        (48, (256, 192), 2, 128),
        (48, (384, 288), 3, 96),
    ],
)
def test_sigma_and_batch_follow_the_official_files(width, input_hw, sigma, batch):
    config = load_config(overrides={"model.width": width, "model.input_hw": input_hw})
    assert config.sigma == sigma
    assert config.official_batch == batch
    assert config.learning_rate(batch) == 1e-3


def test_a_sigma_that_is_given_is_taken():
    assert load_config(overrides={"model.sigma": 1}).sigma == 1.0


def test_the_learning_rate_is_in_proportion_to_the_batch():
    config = load_config("official")
    assert config.learning_rate(32) == 1e-3 / 4
    small = load_config(overrides={"optimizer.learning_rate_batch": 16})
    assert small.learning_rate(32) == 2e-3


# ---------------------------------------------------------------- who has the last word


def test_defaults_then_the_file_then_options(tmp_path):
    path = write(tmp_path, "[optimizer]\nepochs = 30\nema = 0.5\n")
    defaults = {"optimizer.epochs": 1, "optimizer.clip_norm": 2.0, "run.samples": 3}
    overrides = {"optimizer.ema": 0.9, "model.width": 16, "run.seed": None, "run.samples": 0}
    config = load_config(str(path), overrides, defaults)
    assert config.optimizer.epochs == 30  # the file before the defaults
    assert config.optimizer.clip_norm == 2.0  # a default that nobody replaced
    assert config.optimizer.ema == 0.9  # an option before the file
    assert config.model.width == 16
    assert config.run.seed == 0  # None is no value
    assert config.run.samples == 0  # but 0 is one
    assert config.optimizer.milestones == OptimizerConfig().milestones


def test_a_file_lies_over_the_recipe_below_it_and_a_name_replaces_it(tmp_path):
    path = str(write(tmp_path, "[optimizer]\nema = 0.5\n[data]\ntrain = 'my.toml'\n"))
    below = load_config("fine-tune")
    over = load_config(path, below="fine-tune")
    assert (over.optimizer.ema, over.data.train) == (0.5, "my.toml")
    assert over == replace(
        below,
        optimizer=replace(below.optimizer, ema=0.5),
        data=replace(below.data, train="my.toml"),
    )
    assert load_config(None, below="fine-tune") == below
    assert load_config("mmpose", below="fine-tune") == load_config("mmpose")
    with pytest.raises(ConfigError, match="'optimizer' is 3, expected a table"):
        load_config(str(write(tmp_path, "optimizer = 3")), below="fine-tune")


def test_options_and_defaults_are_left_as_they_were():
    overrides, defaults = {"model.width": 16}, {"model.width": 18}
    assert load_config("official", overrides, defaults).model.width == 16
    assert (overrides, defaults) == ({"model.width": 16}, {"model.width": 18})
    assert load_config("official").model.width == 32


def test_an_empty_file_is_the_default_recipe(tmp_path):
    assert load_config(str(write(tmp_path, ""))) == TrainConfig()


# ---------------------------------------------------------------- what is refused


def test_an_unknown_recipe():
    message, hint = failure("offizial")
    assert message == (
        f"recipe 'offizial' is not known; expected {', '.join(RECIPES)} or a .toml file"
    )
    assert hint == "did you mean 'official'?"
    assert failure("run.yaml")[1] == f"examples lie in {RECIPE_FOLDER}"


def test_a_file_that_is_not_there(tmp_path):
    path = tmp_path / "my.toml"
    assert failure(str(path))[0] == f"{path}: cannot be read: No such file or directory"


@pytest.mark.parametrize(
    "content", [b"[model\n", b"a = \xff\n", b"[model]\nwidth = 1\nwidth = 2", b"a = " + b"[" * 9999]
)
def test_a_file_that_is_not_toml(content, tmp_path):
    path = tmp_path / "my.toml"
    path.write_bytes(content)
    assert failure(str(path))[0].startswith(f"{path}: not readable as TOML: ")


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("[optimiser]\nepochs = 3", "optimiser", "did you mean 'optimizer'?"),
        ("[optimizer]\nepoch = 3", "optimizer.epoch", "did you mean 'optimizer.epochs'?"),
        ("[augment]\nrotate_deg = 3", "augment.rotate_deg", "did you mean 'augment.rotation_deg'?"),
        ("width = 3", "width", "known keys: data, model, augment, optimizer, run"),
        ("[model]\nqqq = 3", "model.qqq", "known keys: width, input_hw, codec, sigma, start"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest_name(text, key, hint, tmp_path):
    path = write(tmp_path, text)
    assert failure(str(path)) == (f"{path}: unknown key '{key}'", hint)


def test_unknown_keys_of_options_are_refused():
    for recipe in (None, "fine-tune"):
        message, hint = failure(recipe, {"optimizer.epoch": 3})
        assert message == "options: unknown key 'optimizer.epoch'"
        assert hint == "did you mean 'optimizer.epochs'?"
    assert failure(None, {"epochs": 3})[1] == "did you mean 'optimizer.epochs'?"
    assert failure(None, {"optimiser.ema": 3})[1] == "did you mean 'optimizer.ema'?"
    assert failure(None, {"qqq": 3})[1].startswith("keys are those of a recipe with their table")


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("[model]\nwidth = '32'", "'model.width' is '32', expected a whole number"),
        ("[model]\nwidth = 32.0", "'model.width' is 32.0, expected a whole number"),
        ("[model]\nwidth = true", "'model.width' is True, expected a whole number"),
        ("[model]\nsigma = '2'", "'model.sigma' is '2', expected a number"),
        ("[model]\nsigma = false", "'model.sigma' is False, expected a number"),
        ("[model]\ncodec = 1", "'model.codec' is 1, expected a text"),
        ("[model]\ninput_hw = 256", "'model.input_hw' is 256, expected a list of 2"),
        ("[model]\ninput_hw = [256]", "'model.input_hw' is [256], expected a list of 2"),
        ("[model]\ninput_hw = [256, '192']", "'model.input_hw' is '192', expected a whole number"),
        ("[optimizer]\nmilestones = 3", "'optimizer.milestones' is 3, expected a list"),
        ("[optimizer]\nmilestones = [1.5]", "'optimizer.milestones' is 1.5, expected a whole"),
        ("[data]\nextra = 'a.json'", "'data.extra' is 'a.json', expected a list"),
        ("[data]\nextra = [1]", "'data.extra' is 1, expected a text"),
        ("[run]\ncompile = 1", "'run.compile' is 1, expected true or false"),
        ("[run]\ncompile = 'yes'", "'run.compile' is 'yes', expected true or false"),
        ("run = 3", "'run' is 3, expected a table [run]"),
        ("[[run]]\nseed = 3", "'run' is [{'seed': 3}], expected a table [run]"),
        ("[model.width]\nx = 3", "'model.width' is {'x': 3}, expected a whole number"),
    ],
)
def test_values_of_another_type_are_refused(text, rest, tmp_path):
    path = write(tmp_path, text)
    assert failure(str(path))[0].startswith(f"{path}: {rest}")


@pytest.mark.parametrize("where", ["overrides", "defaults"])
def test_a_value_where_a_table_belongs_is_refused_with_options_too(where, tmp_path):
    path = write(tmp_path, "run = 3")
    message, _ = failure(str(path), **{where: {"run.seed": 1}})
    assert message == f"{path}: 'run' is 3, expected a table [run]"


RANGES = [
    ("model.width", 0, "model.width is 0, expected an even number from 2, as 32"),
    ("model.width", 33, "model.width is 33, expected an even number from 2, as 32"),
    ("model.input_hw", (256, 200), "model.input_hw is [256, 200], expected (height, width) in"),
    ("model.input_hw", (0, 192), "model.input_hw is [0, 192], expected (height, width) in"),
    ("model.input_hw", (-32, 32), "model.input_hw is [-32, 32], expected (height, width) in"),
    ("model.sigma", -1.0, "model.sigma is -1.0, expected 0 (automatic) or more"),
    ("model.sigma", math.nan, "model.sigma is nan, expected a finite number"),
    ("model.sigma", math.inf, "model.sigma is inf, expected a finite number"),
    ("model.codec", "dork", "model.codec is 'dork', expected one of msra, dark, udp"),
    ("model.start", "", "model.start is empty, expected imagenet, scratch,"),
    ("optimizer.learning_rate", 0.0, "optimizer.learning_rate is 0.0, expected more than 0"),
    (
        "optimizer.learning_rate",
        math.nan,
        "optimizer.learning_rate is nan, expected a finite",
    ),
    (
        "optimizer.learning_rate",
        math.inf,
        "optimizer.learning_rate is inf, expected a finite",
    ),
    ("optimizer.learning_rate_batch", -1, "optimizer.learning_rate_batch is -1, expected 0 or"),
    ("optimizer.epochs", 0, "optimizer.epochs is 0, expected more than 0"),
    ("optimizer.step_factor", 0.0, "optimizer.step_factor is 0.0, expected more than 0"),
    ("optimizer.final_factor", -0.1, "optimizer.final_factor is -0.1, expected 0 or more"),
    ("optimizer.weight_decay", -0.1, "optimizer.weight_decay is -0.1, expected 0 or more"),
    ("optimizer.clip_norm", -1.0, "optimizer.clip_norm is -1.0, expected 0 or more"),
    ("optimizer.clip_norm", math.nan, "optimizer.clip_norm is nan, expected a finite number"),
    ("optimizer.warmup_steps", -1, "optimizer.warmup_steps is -1, expected 0 or more"),
    ("optimizer.frozen_epochs", -1, "optimizer.frozen_epochs is -1, expected 0 or more"),
    ("optimizer.backbone_rate", -1.0, "optimizer.backbone_rate is -1.0, expected 0 or more"),
    ("optimizer.ema", 1.0, "optimizer.ema is 1.0, expected 0 up to, not at, 1"),
    ("optimizer.ema", -0.1, "optimizer.ema is -0.1, expected 0 up to, not at, 1"),
    ("optimizer.schedule", "step", "optimizer.schedule is 'step', expected one of steps, cosine"),
    ("optimizer.loss", "l1", "optimizer.loss is 'l1', expected one of mse, keypoint-mse, ohkm"),
    ("optimizer.batch_norm", "x", "optimizer.batch_norm is 'x', expected one of local, sync,"),
    ("optimizer.milestones", (200, 170), "optimizer.milestones is [200, 170], expected rising"),
    ("optimizer.milestones", (170, 170), "optimizer.milestones is [170, 170], expected rising"),
    ("optimizer.milestones", (0, 170), "optimizer.milestones is [0, 170], expected rising epochs"),
    ("run.batch_size", -2, "run.batch_size is -2, expected 1 or more, 0 for the official batch"),
    ("run.seed", 2**63, "run.seed is 9223372036854775808, expected 9223372036854775807 at most"),
    ("run.seed", -1, "run.seed is -1, expected 0 or more"),
    ("run.eval_every", -1, "run.eval_every is -1, expected 0 or more"),
    ("run.patience", -1, "run.patience is -1, expected 0 or more"),
    ("run.hours", 2.0, "run.hours is 2, but the schedule 'steps' steps at fixed epochs"),
    ("run.samples", -1, "run.samples is -1, expected 0 or more"),
    ("run.save_minutes", 0.0, "run.save_minutes is 0.0, expected more than 0"),
    ("run.save_minutes", math.nan, "run.save_minutes is nan, expected a finite number"),
    ("run.timeout_s", 0, "run.timeout_s is 0, expected more than 0"),
    ("run.precision", "fp64", "run.precision is 'fp64', expected one of auto, fp32, bf16, fp16"),
    ("run.metric", "ap", "run.metric is 'ap', expected one of AP, PCK"),
    ("data.train", "", "data.train is empty, expected a data set such as coco or my.toml"),
    *(
        ("data.val", share, f"data.val is '{share}', expected a share of the photos between 0% and")
        for share in ("0%", "100%", "150%", "-5%", "1,5%", "0.0 %")
    ),
    ("data.workers", -2, "data.workers is -2, expected 0 or more, or -1"),
    ("data.cache", "disk", "data.cache is 'disk', expected one of none, ram, packed"),
    ("data.cache_gb", -1.0, "data.cache_gb is -1.0, expected 0 or more"),
    ("data.cache_gb", math.nan, "data.cache_gb is nan, expected a finite number"),
    ("augment.scale", 1.5, "augment.scale is 1.5, expected a number from 0 to 0.99"),
    ("augment.flip_prob", math.nan, "augment.flip_prob is nan, expected a number from 0 to 1"),
    ("augment.distribution", "normal", "augment.distribution is 'normal', expected one of"),
]


@pytest.mark.parametrize(("key", "value", "message"), RANGES)
def test_values_out_of_range_are_refused(key, value, message):
    assert failure(None, {key: value})[0].startswith(f"options: {message}")


def test_a_share_of_the_photos_is_told_from_a_data_set():
    shares = {"10%": 0.1, "12.5 %": 0.125, "0.5%": 0.005, "": None, "10": None, "my%": None}
    assert {val: DataConfig(val=val).val_share for val in shares} == shares
    config = load_config(overrides={"data.val": "10%"})
    assert tomllib.loads(config_to_toml(config))["data"]["val"] == "10%"


def test_a_recipe_is_not_blamed_for_what_an_option_said(tmp_path):
    path = write(tmp_path, "[optimizer]\nlearning_rate = 0.1\nepochs = 0\n")
    message, _ = failure(str(path), {"optimizer.epochs": 3, "optimizer.learning_rate": 0.0})
    assert message == "options: optimizer.learning_rate is 0.0, expected more than 0"
    message, _ = failure(str(path), {"optimizer.epochs": "3"})
    assert message == "options: 'optimizer.epochs' is '3', expected a whole number"
    message, _ = failure("fine-tune", {"augment.color": 2})
    assert message == "options: augment.color is 2.0, expected a number from 0 to 1"
    message, _ = failure(str(path), {"optimizer.learning_rate": 1.0})
    assert message == f"{path}: optimizer.epochs is 0, expected more than 0"


def test_every_number_that_has_a_limit_has_a_test():
    """A new number must be given a range, or be named here as free of one."""
    free = set()
    numbers = {
        f"{section}.{name}"
        for section, values in asdict(TrainConfig()).items()
        for name, value in values.items()
        if type(value) in (int, float) and section != "augment"
    }
    assert numbers - {key for key, _, _ in RANGES} == free


def test_a_file_is_named_where_a_value_of_it_is_out_of_range(tmp_path):
    path = write(tmp_path, "[augment]\nscale = 3\n")
    expected = f"{path}: augment.scale is 3.0, expected a number from 0 to 0.99"
    assert failure(str(path)) == (expected, "")
    path = write(tmp_path, "[run]\nprecision = 'bf61'\n")
    message, hint = failure(str(path))
    assert message == f"{path}: run.precision is 'bf61', expected one of auto, fp32, bf16, fp16"
    assert hint == "did you mean 'bf16'?"


def test_values_are_checked_without_a_file_too():
    with pytest.raises(ConfigError, match=r"^model\.width is 3, expected an even number"):
        TrainConfig(model=ModelConfig(width=3))


# ---------------------------------------------------------------- what is written

share = st.floats(0, 1)
text = st.text(max_size=8).filter(lambda t: not any(0xD800 <= ord(c) <= 0xDFFF for c in t))
name = text.filter(bool)
count = st.integers(0, 10**6)
data_configs = st.builds(
    DataConfig, train=name, val=text.filter(lambda t: "%" not in t), folder=text,
    train_split=text, val_split=text,
    extra=st.lists(text, max_size=3).map(tuple), cache=st.sampled_from(CACHES), cache_file=text,
    cache_gb=st.floats(0, 1e6), share_photos=st.booleans(),
    workers=st.integers(-1, 99), strict=st.booleans(),
)  # fmt: skip
side = st.integers(1, 99).map(lambda n: 32 * n)
model_configs = st.builds(
    ModelConfig, width=st.integers(1, 99).map(lambda n: 2 * n), input_hw=st.tuples(side, side),
    codec=st.sampled_from(CODECS), sigma=st.floats(0, 1e9), start=name,
)  # fmt: skip
above = st.floats(1e-300, 1e300)
optimizers = st.builds(
    OptimizerConfig, learning_rate=above, learning_rate_batch=count, weight_decay=share,
    epochs=st.integers(1, 999), schedule=st.sampled_from(SCHEDULES),
    milestones=st.sets(st.integers(1, 300), max_size=4).map(lambda s: tuple(sorted(s))),
    step_factor=above, final_factor=share, warmup_steps=count, clip_norm=st.floats(0, 1e300),
    ema=st.floats(0, 0.9999), loss=st.sampled_from(LOSSES), backbone_rate=share,
    frozen_epochs=count, batch_norm=st.sampled_from(BATCH_NORMS),
)  # fmt: skip
runs = st.builds(
    RunConfig, batch_size=st.integers(-1, 9999), seed=st.integers(0, 2**63 - 1),
    precision=st.sampled_from(PRECISIONS), channels_last=st.booleans(), compile=st.booleans(),
    search_kernels=st.booleans(), graphs=st.booleans(),
    deterministic=st.booleans(), eval_every=count, metric=st.sampled_from(METRICS),
    patience=count, save_minutes=above, samples=count, timeout_s=st.integers(1, 10**6),
)  # fmt: skip


@settings(deadline=None)
@given(st.builds(TrainConfig, data_configs, model_configs, optimizer=optimizers, run=runs))
def test_what_is_written_is_read_back_the_same(tmp_path_factory, config):
    path = write(tmp_path_factory.getbasetemp(), config_to_toml(config))
    assert load_config(str(path)) == config


def test_the_written_form_is_plain_toml():
    config = TrainConfig(data=DataConfig(train=str(Path("a\\b", 'c"d')), extra=("ü.json", "\x7f")))
    config = replace(config, optimizer=OptimizerConfig(learning_rate=1e-5))
    fields = tomllib.loads(config_to_toml(config))
    assert list(fields) == ["data", "model", "augment", "optimizer", "run"]
    assert fields["data"]["extra"] == ["ü.json", "\x7f"]
    assert fields["optimizer"]["learning_rate"] == 1e-5
    assert fields["optimizer"]["milestones"] == [170, 200]
    assert fields["run"]["channels_last"] is True

"""From pictures and boxes to keypoints, and from a name to a model."""

import dataclasses
import socket
import time

import numpy as np
import pytest

from builders import make_poses
from fakes import SpotNetwork, make_spec, photo_with_spots
from hrnet_cli import checkpoint, heatmap, oks, weights
from hrnet_cli.config import CODECS
from hrnet_cli.errors import ExitCode, UsageError, WeightsError
from hrnet_cli.estimator import ModelHints, PoseEstimator, find_model, load_model, without_doubles
from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.schema import load_schema
from hrnet_cli.structures import Boxes, PersonHeatmaps, Poses

# Largest error in crop pixels of a spot found by the ideal network. A heatmap pixel is 4 crop
# pixels: msra looks a quarter of one to the side, so up to 1 is left; the others fit the peak, and
# the centroid of the rounded grey values is itself a few hundredths off.
TOLERANCE_PX = {"msra": 1.2, "dark": 0.25, "udp": 0.25}


def make_estimator(codec="udp", **options) -> PoseEstimator:
    spec = make_spec(codec)
    return PoseEstimator(SpotNetwork(spec, options.pop("pair", None)), spec, **options)


def make_boxes(*xyxy) -> Boxes:
    return Boxes(np.array(xyxy, np.float32).reshape(-1, 4), np.full(len(xyxy), 0.8))


def batches(found: PoseEstimator) -> list[int]:
    """Return the sizes of the batches the network was given."""
    assert isinstance(found.runtime, SpotNetwork)
    return found.runtime.batches


def kept(poses: Poses) -> PersonHeatmaps:
    assert poses.heatmaps is not None
    return poses.heatmaps


def crop_scale(box, input_hw=(128, 96)) -> float:
    """Return crop pixels per picture pixel, from the definition of the crop."""
    x1, y1, x2, y2 = box
    height, width = input_hw
    return width / (1.25 * max(x2 - x1, (y2 - y1) * width / height))


# Geometry: where the network saw it is where it comes back ----------------------------------------


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    ("box", "spot"),
    [
        pytest.param((40, 30, 100, 110), (71.3, 58.6), id="as-the-input"),
        pytest.param((40, 20, 60, 120), (50.4, 100.2), id="narrow"),
        pytest.param((10, 50, 150, 80), (120.7, 70.3), id="wide"),
        pytest.param((-40, -30, 60, 90), (20.5, 25.25), id="beyond-top-left"),
        pytest.param((120, 80, 230, 170), (150.2, 101.8), id="beyond-bottom-right"),
        pytest.param((-30.5, -20.25, 190.5, 140.75), (33.3, 99.9), id="around-all"),
        pytest.param((40.5, 30.25, 99.75, 109.5), (60.0, 60.0), id="fractions"),
    ],
)
def test_a_spot_comes_back_at_its_place_in_the_photo(codec, box, spot):
    poses = make_estimator(codec)(photo_with_spots((160, 120), spot), np.array([box]))
    tolerance_px = TOLERANCE_PX[codec] / crop_scale(box)
    assert tolerance_px < 4
    assert np.abs(poses.keypoints_NK2 - spot).max() < tolerance_px
    # Sampled at heatmap pixels, a Gaussian of sigma 2 is at least exp(-0.5 * 2 * 0.5^2 / 4) high.
    assert ((poses.scores_NK > 0.93) & (poses.scores_NK <= 1)).all()


@pytest.mark.parametrize("codec", CODECS)
def test_the_flip_test_comes_back_at_the_same_place(codec):
    spot, box = (71.3, 58.6), (40, 30, 100, 110)
    poses = make_estimator(codec, flip_test=True)(photo_with_spots((160, 120), spot), [box])
    # The shift by one column leaves msra and dark half a crop pixel aside: see `flip_merge`.
    tolerance_px = (TOLERANCE_PX[codec] + (0 if codec == "udp" else 0.5)) / crop_scale(box)
    assert np.abs(poses.keypoints_NK2 - spot).max() < tolerance_px


def test_the_flip_test_exchanges_left_and_right():
    schema = load_schema("coco17")
    right, left = schema.index["right_wrist"], schema.index["left_wrist"]
    spots = [(55.0, 70.0), (85.0, 70.0)]
    found = make_estimator("udp", flip_test=True, pair=(right, left))
    poses = found(photo_with_spots((160, 120), *spots), [(40, 30, 100, 110)])
    # Not exchanged, two half-high peaks would stand in each map.
    assert np.abs(poses.keypoints_NK2[0, [right, left]] - spots).max() < 0.3
    assert (poses.scores_NK[0, [right, left]] > 0.93).all()


def test_the_flip_test_averages_the_maps_of_crop_and_mirrored_crop():
    spec = make_spec("msra")

    class Network(SpotNetwork):
        def __call__(self, crops_BHW3):
            self.seen = crops_BHW3
            self.given = np.random.default_rng(1).random((len(crops_BHW3), 17, 32, 24), np.float32)
            return self.given

    network = Network(spec)
    found = PoseEstimator(network, spec, flip_test=True, keep_heatmaps=True)
    poses = found(photo_with_spots((160, 120), (50, 50)), [(40, 30, 100, 110), (20, 20, 90, 70)])
    assert np.array_equal(network.seen[2:], network.seen[:2, :, ::-1])
    expected = heatmap.flip_merge(
        network.given[:2], network.given[2:], spec.schema.flip_indices, "msra"
    )
    assert np.array_equal(kept(poses).heatmaps_NKHW, expected)


@pytest.mark.parametrize("codec", CODECS)
def test_kept_heatmaps_show_the_spot_at_its_place(codec):
    spot, box = (71.3, 58.6), (40, 30, 100, 110)
    poses = make_estimator(codec, keep_heatmaps=True)(photo_with_spots((160, 120), spot), [box])
    row, column = np.unravel_index(kept(poses).heatmaps_NKHW[0, 0].argmax(), (32, 24))
    place = kept(poses).heatmap_to_image_N23[0] @ [column, row, 1]
    # The nearest heatmap pixel is at most half of one away: 2 crop pixels and a little for udp.
    assert np.abs(place - spot).max() < 2.2 / crop_scale(box)


# Batches ------------------------------------------------------------------------------------------


def test_crops_of_several_pictures_share_batches():
    found = make_estimator(batch_size=4)
    images = [photo_with_spots((80, 60), (20 + 5 * i, 30)) for i in range(5)]
    people = [2, 0, 3, 1, 1]
    boxes = [make_boxes(*[(5 + j, 5, 65 + j, 55) for j in range(count)]) for count in people]
    poses = found.estimate(images, boxes)
    assert batches(found) == [4, 3]
    assert [len(one) for one in poses] == people
    for number, one in enumerate(poses):
        assert one.boxes is boxes[number]
        assert np.abs(one.keypoints_NK2 - (20 + 5 * number, 30)).max(initial=0) < 0.3


def test_a_picture_gives_the_same_alone_and_among_others():
    spots = [(20, 30), (45, 22), (31, 17)]
    images = [photo_with_spots((80, 60), spot) for spot in spots]
    boxes = [make_boxes((5, 5, 65, 55))] * 3
    together = make_estimator(batch_size=2).estimate(images, boxes)
    for image, one in zip(images, together, strict=True):
        alone = make_estimator()(image, boxes[0])
        assert np.array_equal(alone.keypoints_NK2, one.keypoints_NK2)


def test_the_flip_test_gives_the_network_both_halves_of_a_batch_at_once():
    found = make_estimator(batch_size=4, flip_test=True)
    found(photo_with_spots((80, 60), (20, 30)), [(5, 5, 65, 55)] * 3)
    assert batches(found) == [4, 2]


@pytest.mark.parametrize("keep_heatmaps", [False, True])
def test_nobody_costs_no_call(keep_heatmaps):
    found = make_estimator(keep_heatmaps=keep_heatmaps)
    image = photo_with_spots((80, 60))
    assert found.estimate([], []) == []
    for poses in (found(image, []), found(image, np.zeros((0, 4))), found(image, Boxes.empty())):
        assert len(poses) == 0
        assert poses.keypoints_NK2.shape == (0, 17, 2)
        assert poses.heatmaps is None
    assert batches(found) == []


def test_heatmaps_are_kept_for_each_picture_only_when_asked_for():
    images = [photo_with_spots((80, 60), (20, 30)), photo_with_spots((80, 60))]
    boxes = [make_boxes((5, 5, 65, 55), (5, 5, 60, 50)), Boxes.empty()]
    with_people, nobody = make_estimator(keep_heatmaps=True, batch_size=1).estimate(images, boxes)
    assert kept(with_people).heatmaps_NKHW.shape == (2, 17, 32, 24)
    assert kept(nobody).heatmaps_NKHW.shape == (0, 17, 32, 24)
    assert make_estimator().estimate(images, boxes)[0].heatmaps is None


def test_the_clock_knows_the_stages():
    found = make_estimator()
    found(photo_with_spots((80, 60), (20, 30)), [(5, 5, 65, 55)])
    assert list(found.clock.seconds) == ["crop", "network", "decode"]
    assert all(seconds > 0 for seconds in found.clock.seconds.values())


# The call from Python -----------------------------------------------------------------------------


def test_plain_arrays_of_boxes_count_as_sure():
    image, box = photo_with_spots((80, 60), (20, 30)), (5, 5, 65, 55)
    poses = make_estimator()(image, np.array([box], np.int64))
    assert poses.boxes.scores_N.tolist() == [1.0]
    assert poses.boxes.xyxy_N4.tolist() == [list(box)]
    assert poses.schema.name == "coco17"
    # Box score times the mean keypoint score.
    assert poses.person_scores_N[0] == pytest.approx(poses.scores_NK[0].mean(), abs=1e-6)
    sure = make_estimator()(image, make_boxes(box))
    assert sure.person_scores_N[0] == pytest.approx(0.8 * poses.person_scores_N[0], abs=1e-6)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[np.nan, 0, 5, 5]], r"with x1 < x2 and y1 < y2, got \[nan, 0\.0, 5\.0, 5\.0\]"),
        ([[0, 0, 5, 5], [3, 3, 3, 9]], r"got \[3\.0, 3\.0, 3\.0, 9\.0\]"),
        ([[9, 9, 2, 2]], r"got \[9\.0, 9\.0, 2\.0, 2\.0\]"),
        ([[0, 0, np.inf, 5]], r"got \[0\.0, 0\.0, inf, 5\.0\]"),
        # Four boxes with their scores are 20 numbers, which are no five boxes.
        (np.ones((4, 5)), r"expected \(N, 4\), got \(4, 5\)"),
        ([1, 2, 3, 4], r"expected \(N, 4\), got \(4,\)"),
    ],
)
def test_boxes_that_cannot_be_meant_are_refused(boxes, message):
    image = photo_with_spots((80, 60))
    with pytest.raises(ValueError, match=message):
        make_estimator()(image, boxes)
    with pytest.raises(ValueError, match=message):
        make_estimator().estimate([image, image], [[(5, 5, 65, 55)], boxes])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((60, 80), "u1"), r"expected \(H, W, 3\) uint8, got \(60, 80\) uint8"),
        (np.zeros((60, 80, 4), "u1"), r"expected \(H, W, 3\) uint8, got \(60, 80, 4\) uint8"),
        (np.zeros((60, 80, 3)), r"expected \(H, W, 3\) uint8, got \(60, 80, 3\) float64"),
        (np.zeros((0, 0, 3), "u1"), r"expected one pixel at least, got \(0, 0, 3\)"),
    ],
)
def test_pictures_that_are_no_8_bit_rgb_are_refused(image, message):
    boxes = [(5, 5, 65, 55)]
    with pytest.raises(ValueError, match=message):
        make_estimator()(image, boxes)
    with pytest.raises(ValueError, match=message):
        make_estimator().estimate([photo_with_spots((80, 60)), image], [boxes, boxes])


def test_several_pictures_take_arrays_of_boxes_one_for_each():
    image, box = photo_with_spots((80, 60), (33, 25)), (5, 5, 65, 55)
    found = make_estimator().estimate([image, image], [np.array([box]), []])
    assert [len(poses) for poses in found] == [1, 0]
    assert np.array_equal(found[0].keypoints_NK2, make_estimator()(image, [box]).keypoints_NK2)
    with pytest.raises(ValueError, match="boxes for each of 2 pictures, got them for 1"):
        make_estimator().estimate([image, image], [[box]])


@pytest.mark.parametrize("size", [0, -4])
def test_batches_of_nobody_are_refused(size):
    with pytest.raises(UsageError, match=f"batch_size is {size}, expected at least 1"):
        make_estimator(batch_size=size)


# From a name to a model ---------------------------------------------------------------------------


@pytest.fixture
def _unreachable(tmp_path, monkeypatch):
    """An empty cache, and a proxy that refuses every connection."""
    monkeypatch.setenv("HRNET_HOME", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def starter() -> PoseEstimator:
    return load_model("starter", device="cpu", offline=True)


def test_the_starter_model_loads_without_a_network(starter):
    assert starter.spec == dataclasses.replace(
        weights.find_entry("starter").model_spec(), width=starter.spec.width
    )
    assert starter.load_summary.split(", ")[1].startswith("loaded ")
    poses = starter(photo_with_spots((80, 60), (20, 30)), [(5, 5, 65, 55)])
    assert poses.keypoints_NK2.shape == (1, len(starter.spec.schema), 2)
    assert np.isfinite(poses.keypoints_NK2).all()


@pytest.mark.usefixtures("_unreachable")
@pytest.mark.parametrize("offline", [False, True])
def test_the_starter_model_stands_in_for_the_default(offline):
    warnings: list[str] = []
    start = time.perf_counter()
    path, spec = find_model(offline=offline, on_warning=warnings.append)
    assert time.perf_counter() - start < 5
    assert path == weights.stored_path(weights.find_entry("starter"))
    assert spec == weights.find_entry("starter").model_spec()
    (warning,) = warnings
    assert warning.startswith(
        "hrnet-w32-256x192-udp is not on this machine and cannot be fetched;"
        " using the 'starter' model, which is far less accurate ("
    )
    assert "\n" not in warning


@pytest.mark.usefixtures("_unreachable")
def test_the_starter_model_stands_in_when_the_network_is_silent(monkeypatch):
    assert weights.FALLBACK_DEADLINE_S <= 10
    monkeypatch.setattr(weights, "FALLBACK_DEADLINE_S", 0.4)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{silent.getsockname()[1]}")
        warnings: list[str] = []
        start = time.perf_counter()
        _, spec = find_model(on_warning=warnings.append)
    # The deadline, and what a busy machine may add.
    assert time.perf_counter() - start < 3
    assert spec == weights.find_entry("starter").model_spec()
    assert len(warnings) == 1


@pytest.mark.usefixtures("_unreachable")
@pytest.mark.parametrize("offline", [False, True])
def test_a_model_asked_for_by_name_has_no_stand_in(offline):
    warnings: list[str] = []
    with pytest.raises(WeightsError, match="hrnet_w32_coco_256x192_udp") as caught:
        find_model("hrnet-w32", offline=offline, on_warning=warnings.append)
    assert caught.value.exit_code == ExitCode.WEIGHTS == 4
    assert warnings == []


def test_unknown_names_and_other_kinds_are_refused():
    with pytest.raises(WeightsError, match="no weights are called 'hrnet-w33'") as caught:
        find_model("hrnet-w33")
    assert "did you mean" in caught.value.hint
    with pytest.raises(WeightsError, match="'yolo26s' is a detector, expected a pose model"):
        find_model("yolo26s")


@pytest.fixture(scope="module")
def untold(tmp_path_factory):
    """Weights that do not say what they are for."""
    import torch

    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save(HRNet(4, 17).state_dict(), path)
    return path


HINTS = ModelHints((64, 64), "msra", "coco17")


def test_hints_describe_a_file_that_says_nothing(untold):
    found = load_model(str(untold), device="cpu", hints=HINTS)
    assert (found.spec.name, found.spec.width) == ("mine", 4)
    assert (found.spec.input_hw, found.spec.codec) == ((64, 64), "msra")


def test_a_file_that_says_nothing_needs_hints(untold):
    with pytest.raises(WeightsError, match="does not say how its network was trained") as caught:
        load_model(str(untold), device="cpu")
    assert caught.value.hint.endswith("--input 256x192 --codec msra --keypoint-schema coco17")


@pytest.mark.parametrize("missing", ["input_hw", "codec", "keypoint_schema"])
def test_incomplete_hints_are_refused(untold, missing):
    with pytest.raises(UsageError) as caught:
        find_model(str(untold), hints=dataclasses.replace(HINTS, **{missing: None}))
    assert caught.value.message == (
        f"'{untold}' needs all of --input, --codec and --keypoint-schema, or none of them"
    )
    assert caught.value.exit_code == ExitCode.USAGE


def test_an_unknown_codec_is_refused(untold):
    with pytest.raises(UsageError, match="codec is 'gauss', expected one of msra, dark, udp"):
        find_model(str(untold), hints=dataclasses.replace(HINTS, codec="gauss"))


def test_hints_for_a_listed_model_are_refused():
    with pytest.raises(UsageError) as caught:
        find_model("starter", hints=ModelHints(codec="udp"))
    assert caught.value.message == (
        "--input, --codec and --keypoint-schema describe a weights file, but 'starter' is a listed"
        " model, whose own are known"
    )
    assert caught.value.hint == "leave them out, or name a file with --model"


def test_a_file_that_describes_itself_needs_no_hints(tmp_path):
    path = tmp_path / "own.safetensors"
    spec = make_spec("dark", (64, 32), "hand21")
    network = HRNet(spec.width, len(spec.schema))
    checkpoint.save_model(path, network.state_dict(), spec, provenance="a test", licence="none")
    found = load_model(str(path), device="cpu")
    assert found.spec == dataclasses.replace(spec, name="own")


def test_a_listed_file_is_known_by_its_hash(tmp_path, untold, monkeypatch):
    entry = dataclasses.replace(
        weights.find_entry("hrnet-w32"), sha256=weights.file_sha256(untold), width=4
    )
    monkeypatch.setattr(weights, "load_weights_list", lambda: {entry.name: entry})
    assert find_model(str(untold)) == (untold, entry.model_spec())


# Two poses of one person --------------------------------------------------------------------------


def test_of_two_poses_of_one_person_the_surer_stays_in_its_place():
    image = photo_with_spots((200, 120), (50.0, 60.0), (150.0, 60.0))
    boxes = Boxes(
        np.array([[20, 20, 80, 100], [120, 20, 180, 100], [22, 20, 82, 100]], np.float32),
        np.array([0.6, 0.7, 0.9]),
    )
    found = make_estimator(keep_heatmaps=True)
    everybody, nobody = found.estimate([image, image], [boxes, Boxes.empty()])
    found.pose_nms = 0.9
    surest, still_nobody, alone = found.estimate(
        [image] * 3, [boxes, Boxes.empty(), make_boxes([20, 20, 80, 100])]
    )
    assert (len(everybody), len(nobody), len(still_nobody), len(alone)) == (3, 0, 0, 1)
    np.testing.assert_array_equal(surest.boxes.xyxy_N4, boxes.xyxy_N4[1:])
    np.testing.assert_allclose(surest.keypoints_NK2, everybody.keypoints_NK2[1:], atol=1e-4)
    np.testing.assert_array_equal(surest.person_scores_N, everybody.person_scores_N[1:])
    assert len(kept(surest).heatmaps_NKHW) == 2


def test_poses_are_doubles_from_the_threshold_on():
    near = make_poses(2, keypoints_NK2=np.tile([[[0.0]], [[4.0]]], (1, 17, 2)))
    areas_N = np.array([900.0, 1100.0])
    alike = oks.oks_matrix(
        near.keypoints_NK2, areas_N, near.keypoints_NK2, areas_N, near.schema.oks_sigmas
    )[0, 1]
    assert 0.1 < alike < 0.9
    assert len(without_doubles(near, areas_N, alike + 0.001)) == 2
    assert len(without_doubles(near, areas_N, alike - 0.001)) == 1


def test_doubles_are_measured_by_the_area_of_the_crop_as_in_the_official_test(monkeypatch):
    areas = []
    real = oks.oks_nms

    def watch(points, scores, areas_N, *more):
        areas.append(areas_N)
        return real(points, scores, areas_N, *more)

    monkeypatch.setattr(oks, "oks_nms", watch)
    found = make_estimator()
    found.pose_nms = 0.9
    # The second box is widened to the shape of the input, 128x96.
    found(photo_with_spots((160, 120), (50.0, 60.0)), [[20, 20, 80, 100], [20, 20, 30, 100]])
    np.testing.assert_allclose(areas, [[60 * 80 * 1.25**2] * 2])

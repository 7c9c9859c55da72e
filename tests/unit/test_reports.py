import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from hrnet_cli import page, person_pictures
from hrnet_cli.data.people import LabelledPeople
from hrnet_cli.errors import InputError, OutputError
from hrnet_cli.eval_report import (
    EvalContext,
    PublishedNumber,
    compare,
    eval_page,
    write_eval_report,
)
from hrnet_cli.evaluation import EvalReport, EvalSettings, score
from hrnet_cli.images import read_image, write_image
from hrnet_cli.person_pictures import PersonCase, draw_case, small_jpeg
from hrnet_cli.predictions import Predictions
from hrnet_cli.schema import load_schema
from hrnet_cli.train_report import read_run, run_charts, train_page, write_train_report

COLUMNS = (
    "epoch,step,samples,loss,lr,samples_per_s,data_wait,val_AP,val_AP50,val_PCK,val_loss,seconds,"
    "memory_mb"
)
EMPTY_TAGS = ("meta", "link", "img", "wbr", "br")


class Reader(HTMLParser):
    """Reads a page: checks that tags close in order, and keeps texts and table rows."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.rows, self.tags = [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in EMPTY_TAGS:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "title"} & set(self.open[2:]):
            self.text.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def row(self, name):
        return next(row[1:] for row in self.rows if row and row[0] == name)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())

    @property
    def pictures(self):
        return [attributes for tag, attributes in self.tags if tag == "img"]


def check_self_contained(html):
    reader = Reader(html)
    assert not {"script", "iframe", "object"} & {tag for tag, _ in reader.tags}
    for _, attributes in reader.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    assert "@import" not in html
    assert "url(" not in html
    assert "default-src 'none'" in html


# --- page -----------------------------------------------------------------------------------------


def test_words_are_escaped_everywhere():
    evil = '"><script>alert(1)</script>'
    html = page.build_page(
        page.Heading(evil, evil, evil),
        [
            page.section(evil, page.heading(evil), page.paragraph(evil), page.note(evil)),
            page.tiles([(evil, evil, evil)]),
            page.table([evil, evil], [[evil, evil]]),
            page.facts([(evil, evil)]),
            page.details(evil, page.command(evil)),
            page.picture(b"", title=evil, words=evil, size_wh=(1, 1)),
        ],
        evil,
    )
    check_self_contained(html)
    assert Reader(html).words.count("alert(1)") == 21


def test_empty_parts_leave_nothing_behind():
    assert page.section("Curves", "", page.charts(), page.pictures([])) == ""
    assert page.tiles([]) == ""


@pytest.mark.parametrize(
    ("value", "decimals", "expected"),
    [
        (0.4714, 3, "0.471"), (0.0, 3, "0.000"), (12345.0, 0, "12,345"),
        (None, 3, "—"), (float("nan"), 3, "—"), (-1, 3, "—"),
    ],
)  # fmt: skip
def test_number_that_does_not_exist_is_a_dash(value, decimals, expected):
    assert page.figure(value, decimals) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (4.21, "4.2 s"), (59.94, "59.9 s"), (59.97, "1 min 00 s"), (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"), (3900, "1 h 05 min"), (None, "—"),
    ],
)  # fmt: skip
def test_time_spans(seconds, expected):
    assert page.duration(seconds) == expected


# --- one person drawn twice -----------------------------------------------------------------------


def make_case(**fields) -> PersonCase:
    """Return somebody in a box of 100 x 200 pixels at (50, 40), every keypoint at its middle."""
    schema = load_schema("coco17")
    middle_K2 = np.full((17, 2), (100.0, 140.0))
    defaults = {
        "box_xywh": np.array([50.0, 40.0, 100.0, 200.0]),
        "true_K2": middle_K2,
        "visible_K": np.full(17, 2, np.uint8),
        "predicted_K2": middle_K2,
        "scores_K": np.full(17, 0.9),
        "schema": schema,
    }
    return PersonCase(**(defaults | fields))


GREY_HW3 = np.full((300, 240, 3), 128, np.uint8)


def halves(picture_HW3):
    width = (picture_HW3.shape[1] - person_pictures.GAP_PX) // 2
    return picture_HW3[:, :width], picture_HW3[:, -width:]


def drawn_at(half_HW3):
    """Return the middle of what was drawn on grey, (x, y) in pixels."""
    ys, xs = np.nonzero((half_HW3 != 128).any(axis=-1))
    return xs.mean(), ys.mean()


def test_labels_stand_left_and_the_prediction_right_where_the_points_are():
    predicted_K2 = np.full((17, 2), (80.0, 140.0))
    left, right = halves(draw_case(GREY_HW3, make_case(predicted_K2=predicted_K2)))
    # The box and 12% of its longer side on each side: x from 26, y from 16, 248 pixels high.
    zoom = person_pictures.HALF_WH[1] / 248
    assert left.shape[0] == person_pictures.HALF_WH[1]
    for half, x in ((left, 100), (right, 80)):
        expected = ((x - 26 + 0.5) * zoom - 0.5, (140 - 16 + 0.5) * zoom - 0.5)
        # The picture's width is rounded to whole pixels, which moves points by up to 0.5.
        assert np.allclose(drawn_at(half), expected, atol=0.3)


def test_person_that_was_not_found_has_the_photo_alone_at_the_right():
    left, right = halves(draw_case(GREY_HW3, make_case(predicted_K2=None, scores_K=None)))
    assert (left != 128).any()
    assert (right == 128).all()


def test_only_labelled_keypoints_are_drawn():
    visible_K = np.zeros(17, np.uint8)
    left, right = halves(draw_case(GREY_HW3, make_case(visible_K=visible_K)))
    assert (left == 128).all()
    assert (right == 128).all()


def test_unsure_predictions_are_drawn_too():
    _, right = halves(draw_case(GREY_HW3, make_case(scores_K=np.full(17, 0.01))))
    assert (right != 128).any()


@pytest.mark.parametrize(
    "fields",
    [
        {"box_xywh": np.array([-400.0, -400.0, 5.0, 5.0]), "true_K2": np.full((17, 2), -390.0)},
        {"box_xywh": np.array([500.0, 500.0, 1.0, 1.0]), "true_K2": np.full((17, 2), 500.0)},
        {"box_xywh": np.array([10.0, 10.0, 0.0, 0.0]), "true_K2": np.full((17, 2), 10.0)},
        {"box_xywh": np.array([0.0, 0.0, 240.0, 1.0]), "true_K2": np.full((17, 2), 0.0)},
    ],
)
def test_odd_boxes_still_make_a_picture_that_fits(fields):
    picture = draw_case(GREY_HW3, make_case(predicted_K2=None, scores_K=None, **fields))
    width, height = person_pictures.HALF_WH
    assert 1 <= picture.shape[0] <= height
    assert picture.shape[1] <= 2 * width + person_pictures.GAP_PX


def test_jpeg_gets_as_good_as_its_bytes_allow():
    noise_HW3 = np.random.default_rng(0).integers(0, 256, (264, 470, 3)).astype(np.uint8)
    best, least = small_jpeg(noise_HW3, 10**9), small_jpeg(noise_HW3, 1)
    between = small_jpeg(noise_HW3, (len(best) + len(least)) // 2)
    assert len(least) < len(between) <= (len(best) + len(least)) // 2 < len(best)


# --- eval -----------------------------------------------------------------------------------------


def make_people(folder, count=3) -> LabelledPeople:
    """Return people in a photo each, 40 keypoint pixels apart, with photos written to a folder."""
    schema = load_schema("coco17")
    rng = np.random.default_rng(0)
    names = tuple(f"photo{number}.png" for number in range(count))
    for name in names:
        write_image(folder / name, GREY_HW3)
    points_NK2 = rng.uniform((60, 50), (140, 230), (count, 17, 2))
    return LabelledPeople(
        name="three",
        folder=folder,
        schema=schema,
        photos=names,
        photo_ids_P=np.arange(1, count + 1),
        sizes_P2=np.full((count, 2), (240, 300)),
        photo_of_N=np.arange(count),
        ids_N=np.arange(11, 11 + count),
        boxes_N4=np.tile([50.0, 40.0, 100.0, 200.0], (count, 1)),
        areas_N=np.full(count, 10_000.0),
        keypoints_NK2=points_NK2,
        visible_NK=np.full((count, 17), 2, np.uint8),
        weights_NK=np.ones((count, 17), np.float32),
        crowd_N=np.zeros(count, bool),
    )


def make_predictions(people, *, shift_px=(), own=True) -> Predictions:
    """Return a pose for each of the first people, its keypoints so many pixels off."""
    count = len(shift_px)
    shift_N11 = np.asarray(shift_px, float).reshape(-1, 1, 1)
    return Predictions(
        photos_P=np.arange(len(people.photos)),
        unreadable=(),
        photo_of_N=np.arange(count),
        keypoints_NK2=(people.keypoints_NK2[:count] + shift_N11).astype(np.float32),
        scores_NK=np.full((count, 17), 0.8, np.float32),
        boxes_N4=np.tile([50.0, 40.0, 150.0, 240.0], (count, 1)).astype(np.float32),
        box_scores_N=np.ones(count, np.float32),
        areas_N=np.full(count, 20_000.0),
        truth_of_N=np.arange(count) if own else np.full(count, -1),
        seconds=0.5,
    )


@pytest.fixture
def people(tmp_path):
    return make_people(tmp_path)


@pytest.fixture
def report(people):
    good = score(people, make_predictions(people, shift_px=(0, 3, 60)), published_ap=0.765)
    missed = make_predictions(people, shift_px=(0, 12), own=False)
    other = score(people, missed, boxes="AP_H_56.json")
    return EvalReport("hrnet-w32", "three", (good, other))


CONTEXT = EvalContext("hrnet eval --dataset three.json", "2025-11-23", versions={"torch": "2.9"})
PUBLISHED = PublishedNumber("AP COCO val2017, labelled boxes", "a model zoo", photos=3)


def test_columns_of_an_evaluation_stand_side_by_side(report, people):
    html = eval_page(report, people, CONTEXT)
    check_self_contained(html)
    read = Reader(html)
    gt, file = report.columns
    assert read.rows[0] == ["", "labelled boxes (gt)", "AP_H_56.json"]
    for name in ("AP", "AP50", "AP75", "APL", "AR", "AR50", "AR75", "ARL"):
        assert read.row(name) == [f"{gt.stats[name]:.3f}", f"{file.stats[name]:.3f}"]
    assert gt.stats["AP"] != file.stats["AP"]
    assert read.row("APM") == ["—", "—"]
    assert read.row("published AP") == ["0.765", "—"]
    assert read.row("of them without a pose") == ["0", "1"]
    assert read.row("milliseconds for a person") == ["166.7", "250.0"]
    assert "no labelled person has a medium area" in read.words
    assert "hrnet eval --dataset three.json" in read.words
    assert "torch 2.9" in read.words


def test_worst_people_come_first_and_small(report, people):
    read = Reader(eval_page(report, people, CONTEXT))
    shown = [picture["alt"] for picture in read.pictures]
    assert len(shown) == 6
    assert shown[0].startswith("OKS 0.000: photo2.png, person 13,")
    assert shown[2] == "OKS 1.000: photo0.png, person 11, box 100x200 pixels"
    assert shown[3] == "OKS 0.000: photo2.png, person 13, box 100x200 pixels, no pose"
    # base64 takes four letters for three bytes
    assert all(len(picture["src"]) <= 25_000 * 4 / 3 + 30 for picture in read.pictures)


def test_photo_that_is_gone_is_named_instead_of_drawn(report, people):
    people.photo_path(2).unlink()
    read = Reader(eval_page(report, people, CONTEXT))
    assert len(read.pictures) == 4
    assert "photo2.png' cannot be opened" in read.words


@pytest.mark.parametrize(
    ("published", "flip_test", "expected"),
    [
        (None, True, "no number was published for this model with such boxes"),
        (replace(PUBLISHED, photos=5000), True, "is not comparable: it counts 5,000 photos, this"
         " run 3."),
        (PUBLISHED, False, "is not comparable: it was measured with the flip test, this run"
         " without."),
        (PUBLISHED, True, "(AP COCO val2017, labelled boxes; a model zoo) was measured in the same"
         " way: the difference is "),
    ],
)  # fmt: skip
def test_published_number_is_compared_only_with_its_like(report, published, flip_test, expected):
    report = replace(report, flip_test=flip_test)
    assert expected in compare(report, report.columns[0], published)


def test_a_number_with_other_settings_is_not_its_like(report):
    soft = replace(report, settings=EvalSettings(nms="soft", resamples=0))
    column = replace(report.columns[0], published_AP=0.6)
    assert "its nms is hard, that of this run soft" in compare(soft, column, PUBLISHED)


@pytest.mark.parametrize(("AP", "where"), [(0.6, "inside"), (0.9, "outside")])
def test_published_number_lies_inside_or_outside_the_interval(report, AP, where):
    column = replace(report.columns[0], published_AP=AP, AP_interval=(0.5, 0.7))
    assert f"it lies {where} the 95% interval" in compare(report, column, PUBLISHED)


def test_nobody_found_and_nothing_evaluated_are_ordinary(people, tmp_path):
    nobody = score(people, make_predictions(people), EvalSettings(resamples=0))
    for columns in ((), (nobody,)):
        html = eval_page(EvalReport("m", "d", columns), people, CONTEXT)
        check_self_contained(html)
    assert "no interval" in html
    empty = make_people(tmp_path, count=0)
    column = score(empty, make_predictions(empty))
    read = Reader(eval_page(EvalReport("m", "d", (column,)), empty, CONTEXT))
    assert read.row("AP") == ["—"]
    assert "There is no labelled person." in read.words


def test_unreadable_photos_are_listed(report, people):
    column = report.columns[0]
    told = replace(column, predictions=replace(column.predictions, unreadable=("a<b.jpg",)))
    read = Reader(eval_page(replace(report, columns=(told,)), people, CONTEXT))
    assert "Photos that could not be read: 1" in read.words
    assert "a<b.jpg" in read.words


def test_evaluation_page_is_written_whole(report, people, tmp_path):
    path = tmp_path / "out" / "report.html"
    write_eval_report(path, report, people, CONTEXT)
    check_self_contained(path.read_text(encoding="utf-8"))
    with pytest.raises(OutputError, match="cannot write"):
        write_eval_report(path / "below.html", report, people, CONTEXT)


# --- train ----------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    """Return the folder of a run of 10 epochs, measured every second one."""
    folder = tmp_path / "my <run>"
    (folder / "samples").mkdir(parents=True)
    rows = [COLUMNS]
    for epoch in range(1, 11):
        scores = f"{epoch / 20},{epoch / 15},{epoch / 12},0.002" if epoch % 2 == 0 else ",,,"
        rows.append(f"{epoch},{epoch * 5},{epoch * 80},{0.01 / epoch},0.001,40,0.02,{scores},60,")
        if epoch % 2 == 0:
            write_image(folder / "samples" / f"epoch-{epoch:03d}.jpg", GREY_HW3)
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    (folder / "config.toml").write_text(
        '[data]\ntrain = "my.toml"\n[model]\nwidth = 16\ninput_hw = [128, 96]\ncodec = "udp"\n'
        "[optimizer]\nepochs = 20\n"
    )
    summary = {
        "schema": "hrnet-train/1",
        "name": "my <run>",
        "command": "hrnet train --dataset my.toml",
        "started": "2025-11-23 20:00",
        "finished": "2025-11-23 20:10",
        "seconds": 600.0,
        "hardware": "one processor",
        "precision": "fp32",
        "unreadable": 0,
        "versions": {"torch": "2.9"},
        "data": {"train": "my.toml, 80 people", "val": "my.toml", "sha256": "ab" * 32},
        "best": {"epoch": 10, "metric": "AP", "value": 0.5},
        "last": {},
        "model": "my <run>/best.safetensors",
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_training_page_shows_the_run(run):
    html = write_train_report(run).read_text(encoding="utf-8")
    check_self_contained(html)
    read = Reader(html)
    assert "<title>my &lt;run&gt;</title>" in html
    for words in (
        "best AP 0.500 epoch 10", "last AP 0.500 epoch 10", "training loss 0.001 epoch 10",
        "epochs 10 of 20 planned", "time 10 min 00 s one processor", "ab" * 32, "torch 2.9",
        "HRNet-W16, input 128x96", "precision fp32", "could not be read 0",
        "hrnet train --dataset my.toml", "people seen 800",
        "hrnet detect photo.jpg --skeleton --model 'my <run>/best.safetensors'",
        "hrnet eval --dataset my.toml --model", "hrnet train --resume --out",
    ):  # fmt: skip
        assert words in read.words
    assert read.row("3") == ["0.003333", "—", "—", "—", "—", "0.001", "40.0", "2.0%", "60.0"]
    # First, middle and last of the five evaluations.
    shown = [picture["alt"] for picture in read.pictures]
    assert [re.search(r"\d+", words)[0] for words in shown] == ["002", "006", "010"]


@pytest.mark.parametrize(
    ("data", "photos", "options"),
    [
        ('train = "coco"\nfolder = "my coco"', "my coco/val2017", "coco --data 'my coco'"),
        ('train = "a.json"\nval = "b.json"', "pics", "b.json"),
        ('train = "a.json"\nval = "b.json"\nfolder = "pics"', "pics/val", "b.json --data pics"),
        ('train = "a.json"\nval = "b.json"\nfolder = "pics"', "other", "b.json"),
        ('train = "a.json"\nval = "b.json"\nfolder = "pics"', None, "b.json --data pics"),
        ('train = "a.json"', None, "my-val.json"),
        ('train = "a.toml"\nval_split = "test"', ".", "a.toml --split test"),
    ],
)
def test_the_page_names_what_the_run_was_measured_on(run, data, photos, options):
    (run / "config.toml").write_text(f"[data]\n{data}\n")
    summary = json.loads((run / "summary.json").read_text())
    summary["data"]["val_photos"] = photos
    (run / "summary.json").write_text(json.dumps(summary))
    assert f"hrnet eval --dataset {options} --model" in Reader(train_page(read_run(run))).words
    (run / "held-out.json").touch()
    held_out = f"hrnet eval --dataset '{run}/held-out.json' --model"
    assert held_out in Reader(train_page(read_run(run))).words


def test_curves_hold_what_was_measured(run):
    charts = {chart.title: chart for chart in run_charts(read_run(run).rows)}
    loss = {one.name: one for one in charts["Loss"].series}
    assert list(loss["training"].xs) == list(range(1, 11))
    assert list(loss["validation"].xs) == [2, 4, 6, 8, 10]
    scores = {one.name: one for one in charts["Accuracy on validation people"].series}
    assert list(scores["AP"].ys) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert list(charts["Time spent waiting for data"].series[0].ys) == pytest.approx([2.0] * 10)


def test_curves_are_written_as_a_picture_too(run):
    write_train_report(run)
    first, _ = read_image(run / "curves.png")
    rows = (run / "metrics.csv").read_text().splitlines()
    (run / "metrics.csv").write_text("\n".join(rows[:6]) + "\n")
    write_train_report(run)
    second, _ = read_image(run / "curves.png")
    assert first.shape == second.shape
    assert (first != second).any()


def test_run_that_was_cut_short_shows_what_is_there(run):
    (run / "summary.json").write_text('{"schema": "hrnet-tr')
    with (run / "metrics.csv").open("a") as table:
        table.write("11,55,880,0.0")
    (run / "samples" / "epoch-010.jpg").write_bytes(b"\xff\xd8\xff")
    (run / "best.safetensors").write_bytes(b"x")
    read = Reader(write_train_report(run).read_text(encoding="utf-8"))
    assert "it has no summary yet" in read.words
    assert "epochs 10 of 20 planned" in read.words
    assert "best AP 0.500 epoch 10" in read.words
    assert "time 10 min 00 s" in read.words
    assert "best.safetensors" in read.words
    assert len(read.pictures) == 2


def test_later_row_of_an_epoch_counts(run):
    with (run / "metrics.csv").open("a") as table:
        table.write("10,50,800,0.5,0.001,40,0.02,,,,,60,\n")
    assert [row["loss"] for row in read_run(run).rows][-2:] == pytest.approx([0.01 / 9, 0.5])


@pytest.mark.parametrize("text", ["", COLUMNS + "\n", "something else\n"])
def test_run_without_an_epoch_has_a_page(run, text):
    (run / "metrics.csv").write_text(text)
    (run / "config.toml").write_text("not toml [")
    for sample in (run / "samples").iterdir():
        sample.unlink()
    read = Reader(write_train_report(run).read_text(encoding="utf-8"))
    assert "No epoch has ended yet." in read.words
    assert (run / "curves.png").is_file()


def test_settings_that_are_gone_are_said(run):
    (run / "config.toml").unlink()
    read = Reader(write_train_report(run).read_text(encoding="utf-8"))
    assert "config.toml is missing" in read.words


def test_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no training run: neither metrics"):
        write_train_report(tmp_path)


def test_metrics_that_are_no_text_are_refused(run):
    (run / "metrics.csv").write_bytes(b"\xff\xfe\x00epoch")
    with pytest.raises(InputError, match="cannot be read"):
        read_run(run)

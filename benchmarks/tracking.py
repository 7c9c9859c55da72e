"""Identities of real people who walk over real photos, crossing and hiding each other.

People are cut out of photos with COCO keypoint labels along their limbs, and moved over other
photos on straight and swaying paths at different depths, so that who is where in every frame is
known. What a detector and a network would say is made from the truth: boxes of what is visible,
jittered, with scores that fall as less of a person is seen; misses, false boxes, people found
twice; keypoints at their labels plus noise, and those of the person in front where one is hidden.
No network runs, so the numbers judge the tracker alone.

"IoU greedy" is a plain tracker: surest box first, each takes the free track with the highest IoU
of its last box, 0.3 or more, if that is at most as old as ours may be. Metrics are those of the
public library trackeval (pip install trackeval): HOTA, MOTA, IDF1, and identity switches.

Run: python benchmarks/tracking.py --data data/coco [--sheet sheet.jpg]
"""

import argparse
import json
import platform
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from hrnet_cli.geometry import box_iou
from hrnet_cli.schema import load_schema
from hrnet_cli.structures import Boxes, Poses
from hrnet_cli.tracking import Tracker, TrackerSettings

SCHEMA = load_schema("coco17")
SIGMAS = np.array(SCHEMA.oks_sigmas)
SIZE_WH = (1280, 720)
SECONDS = 10.0
SEQUENCES = 8
PEOPLE = (4, 7)
# A person is looked for, and counted, where so much of it is visible.
LEAST_VISIBLE = 0.2
# Who hides whom is worked out in a picture so many times smaller.
SHRINK = 4
SETTINGS = TrackerSettings()


@dataclass(frozen=True)
class CutOut:
    """A person of a photo: picture and mask of its box, and keypoints in it, px."""

    picture: np.ndarray
    mask: np.ndarray
    keypoints: np.ndarray
    labelled: np.ndarray


def body_mask(keypoints, labelled, shape):
    """Return where a body is, drawn along its labelled limbs."""
    mask = np.zeros(shape, np.uint8)
    width = max(3, round(0.11 * shape[0]))
    points = np.round(keypoints).astype(int)
    for a, b in SCHEMA.edges:
        if labelled[a] and labelled[b]:
            cv2.line(mask, points[a].tolist(), points[b].tolist(), 1, width)
    index = SCHEMA.index
    torso = [
        index[f"{side}_{part}"]
        for side, part in (
            ("left", "shoulder"),
            ("right", "shoulder"),
            ("right", "hip"),
            ("left", "hip"),
        )
    ]
    if labelled[torso].all():
        cv2.fillConvexPoly(mask, cv2.convexHull(points[torso]), 1)
    if labelled[:5].any():
        centre = points[:5][labelled[:5]].mean(axis=0).round().astype(int)
        cv2.circle(mask, centre.tolist(), max(3, round(0.08 * shape[0])), 1, -1)
    return mask.astype(bool)


def read_cut_outs(folder, split):
    """Return people with nearly all keypoints labelled, and photos to walk over."""
    document = json.loads((folder / f"annotations/person_keypoints_{split}.json").read_text())
    names = {image["id"]: image["file_name"] for image in document["images"]}
    people = []
    for annotation in document["annotations"]:
        keypoints = np.array(annotation["keypoints"], float).reshape(17, 3)
        x, y, width, height = np.round(annotation["bbox"]).astype(int)
        if annotation["iscrowd"] or annotation["num_keypoints"] < 13 or height < 130:
            continue
        photo = cv2.imread(str(folder / split / names[annotation["image_id"]]))
        picture = photo[y : y + height, x : x + width]
        points, labelled = keypoints[:, :2] - [x, y], keypoints[:, 2] > 0
        # A keypoint without a label gets the middle of the body, and is never seen.
        points[~labelled] = points[labelled].mean(axis=0)
        mask = body_mask(points, labelled, picture.shape[:2])
        people.append(CutOut(picture, mask, points, labelled))
    photos = [folder / split / name for name in sorted(names.values())[:SEQUENCES]]
    return people, [cv2.resize(cv2.imread(str(photo)), SIZE_WH) for photo in photos]


@dataclass(frozen=True)
class Walk:
    """A cut-out and where it goes: its centre in px at each time, and its height in px."""

    person: CutOut
    height: float
    start: np.ndarray
    speed: np.ndarray
    sway: tuple[float, float, float]

    def centre(self, time_s):
        """Return (x, y) at a time."""
        size, hertz, phase = self.sway
        x = (
            self.start[0]
            + self.speed[0] * time_s
            + size * np.sin(2 * np.pi * hertz * time_s + phase)
        )
        return np.array([x, self.start[1] + self.speed[1] * time_s])

    @property
    def scale(self):
        """Return by how much the cut-out is enlarged."""
        return self.height / self.person.mask.shape[0]

    def box(self, time_s):
        """Return the whole person's box, hidden or not."""
        height, width = self.person.mask.shape
        half = self.scale * np.array([width, height]) / 2
        return np.concatenate([self.centre(time_s) - half, self.centre(time_s) + half])

    def keypoints(self, time_s):
        """Return the true keypoints."""
        return self.scale * self.person.keypoints + self.box(time_s)[:2]


def make_walks(rng, people):
    """Return walkers of one sequence, the hindmost first."""
    walks = []
    for _ in range(rng.integers(*PEOPLE)):
        height = rng.uniform(220, 420)
        leftwards = rng.random() < 0.5
        speed = rng.uniform(0.25, 0.9) * height * (-1 if leftwards else 1)
        start = np.array([rng.uniform(0.5, 1.0) if leftwards else rng.uniform(0, 0.5), 0]) * SIZE_WH
        start[1] = 720 - height / 2 - rng.uniform(0, 120)
        sway = rng.uniform(0, 60), rng.uniform(0.1, 0.4), rng.uniform(0, 6)
        walk = Walk(
            people[rng.integers(len(people))],
            height,
            start,
            np.array([speed, rng.uniform(-10, 10)]),
            sway,
        )
        walks.append(walk)
    return sorted(walks, key=lambda walk: walk.box(0.0)[3])


def place(walk, time_s, shrink):
    """Return the mask of a walker in a picture shrunk so often: (mask part, slices, whole area)."""
    x1, y1, x2, y2 = np.round(walk.box(time_s) / shrink).astype(int)
    mask = cv2.resize(walk.person.mask.astype(np.uint8), (x2 - x1, y2 - y1), interpolation=0)
    left, top = max(0, -x1), max(0, -y1)
    right, bottom = min(x2, SIZE_WH[0] // shrink) - x1, min(y2, SIZE_WH[1] // shrink) - y1
    part = mask[top : max(bottom, top), left : max(right, left)].astype(bool)
    height, width = part.shape
    slices = slice(y1 + top, y1 + top + height), slice(x1 + left, x1 + left + width)
    return part, slices, mask.sum()


def visible_parts(walks, time_s):
    """Return who is on top (-1 nobody) in a shrunk picture, and how much of each is visible."""
    owner = np.full(np.array(SIZE_WH[::-1]) // SHRINK, -1, np.int8)
    wholes = []
    for index, walk in enumerate(walks):
        part, where, whole = place(walk, time_s, SHRINK)
        owner[where][part] = index
        wholes.append(whole)
    counts = np.bincount(owner[owner >= 0], minlength=len(walks))
    return owner, counts / np.array(wholes)


def seen_box(walks, owner, index, time_s):
    """Return the box a detector aims at: mostly around what is seen, a little the whole person."""
    ys, xs = np.nonzero(owner == index)
    seen = SHRINK * np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], float)
    return 0.7 * seen + 0.3 * walks[index].box(time_s)


def seen_keypoints(rng, walks, owner, index, time_s):
    """Return keypoints and scores as a network would find them in a person's crop."""
    walk = walks[index]
    true = walk.keypoints(time_s)
    height = walk.height
    places = np.clip(np.round(true).astype(int), 0, np.subtract(SIZE_WH, 1)) // SHRINK
    columns, rows = places.T
    on_top = owner[rows, columns]
    hidden = (on_top != index) & (on_top >= 0)
    scores = np.where(hidden, rng.uniform(0.1, 0.45, 17), rng.uniform(0.6, 0.95, 17))
    points = true + rng.normal(size=(17, 2)) * (0.6 * SIGMAS * height)[:, None]
    for k in np.flatnonzero(hidden):
        # A network finds the keypoint of whoever is in front as often as not.
        if rng.random() < 0.5:
            points[k] = walks[on_top[k]].keypoints(time_s)[k] + rng.normal(0, 3, 2)
            scores[k] = rng.uniform(0.3, 0.8)
    scores[~walk.person.labelled] = rng.uniform(0, 0.15, (~walk.person.labelled).sum())
    return points, scores


def detections(rng, walks, owner, visible, time_s):
    """Return a frame's people as a detector and a network would find them."""
    found = []
    for index in np.flatnonzero(visible >= LEAST_VISIBLE):
        part = visible[index]
        score = np.clip(0.25 + 0.7 * part + rng.normal(0, 0.08), 0.05, 0.98)
        if rng.random() < 0.03 + 0.2 * (part < 0.5):
            continue
        box = seen_box(walks, owner, index, time_s)
        points, scores = seen_keypoints(rng, walks, owner, index, time_s)
        spread = 0.025 * walks[index].height
        found.append((box + rng.normal(0, spread, 4), score, points, scores))
        if rng.random() < 0.03:
            # Found twice: two crops of the same pixels, which give nearly the same keypoints.
            again = (
                points + rng.normal(size=(17, 2)) * (0.2 * SIGMAS * walks[index].height)[:, None]
            )
            found.append((box + rng.normal(0, 3 * spread, 4), rng.uniform(0.2, 0.6), again, scores))
    for _ in range(rng.poisson(0.15)):
        centre, height = rng.uniform([0, 300], [1280, 650]), rng.uniform(80, 300)
        half = np.array([0.25, 0.5]) * height
        points = centre + rng.uniform(-1, 1, (17, 2)) * half
        scores = rng.uniform(0.05, 0.4, 17)
        box = np.concatenate([centre - half, centre + half])
        found.append((box, rng.uniform(0.1, 0.5), points, scores))
    return poses_of([found[i] for i in rng.permutation(len(found))])


def poses_of(found):
    """Return (box, score, keypoints, scores) of people as poses."""
    if not found:
        return Poses.empty(SCHEMA)
    boxes, scores, points, point_scores = map(np.stack, zip(*found, strict=True))
    return Poses(points, point_scores, scores, Boxes(boxes, scores), SCHEMA)


class IouGreedy:
    """The plain tracker to compare with."""

    def __init__(self):
        self.tracks, self.next_id = {}, 1

    def update(self, poses, time_s):
        """Return the frame's people with identities."""
        sure = np.flatnonzero(poses.boxes.scores_N >= SETTINGS.person_threshold)
        self.tracks = {
            track: (box, seen)
            for track, (box, seen) in self.tracks.items()
            if time_s - seen <= SETTINGS.max_gap_s
        }
        ids = np.zeros(len(poses), np.int64)
        free = dict(self.tracks)
        for n in sure[np.argsort(-poses.boxes.scores_N[sure])]:
            box = poses.boxes.xyxy_N4[n]
            fits = {t: box_iou(box[None], last[None])[0, 0] for t, (last, _) in free.items()}
            best = max(fits, key=fits.get, default=None)
            if best is None or fits[best] < 0.3:
                best, self.next_id = self.next_id, self.next_id + 1
            free.pop(best, None)
            ids[n], self.tracks[best] = best, (box, time_s)
        kept = np.flatnonzero(ids)
        return Poses(
            poses.keypoints_NK2[kept],
            poses.scores_NK[kept],
            poses.person_scores_N[kept],
            poses.boxes[kept],
            SCHEMA,
            track_ids_N=ids[kept],
        )


class Ours:
    """Our tracker, as it is or without keypoints."""

    def __init__(self, *, keypoints=True):
        self.tracker, self.keypoints = Tracker(SETTINGS), keypoints

    def update(self, poses, time_s):
        """Return the frame's people with identities."""
        if not self.keypoints:
            poses = replace(poses, scores_NK=np.zeros_like(poses.scores_NK))
        return self.tracker.update(poses, time_s)


@dataclass
class Sequence:
    """One sequence at one frame rate: truth and detections of each frame."""

    times: np.ndarray
    walks: list
    owners: list
    truth: list  # (ids, boxes) of each frame
    found: list  # Poses of each frame


def make_sequence(seed, people, times):
    """Return a sequence: the same people on the same paths whatever the frame times."""
    walks = make_walks(np.random.default_rng(seed), people)
    rng = np.random.default_rng([seed, len(times)])
    owners, truth, found = [], [], []
    for time_s in times:
        owner, visible = visible_parts(walks, time_s)
        here = np.flatnonzero(visible >= LEAST_VISIBLE)
        boxes = [seen_box(walks, owner, i, time_s) for i in here]
        truth.append((here, np.array(boxes).reshape(-1, 4)))
        found.append(detections(rng, walks, owner, visible, time_s))
        owners.append(owner)
    return Sequence(times, walks, owners, truth, found)


def track(sequence, tracker):
    """Return what a tracker makes of all frames."""
    frames = zip(sequence.found, sequence.times.tolist(), strict=True)
    return [tracker.update(poses, time_s) for poses, time_s in frames]


def track_between(sequence, every, seed):
    """Return what our tracker makes of a sequence with a detector in every n-th frame only."""
    rng, tracker, out = np.random.default_rng(seed), Tracker(SETTINGS), []
    for frame, time_s in enumerate(sequence.times.tolist()):
        poses = sequence.found[frame]
        if frame % every:
            boxes, owner = tracker.predict_boxes(time_s, SIZE_WH), sequence.owners[frame]
            ids, true = sequence.truth[frame]
            people = []
            for box, score in zip(boxes.xyxy_N4, boxes.scores_N, strict=True):
                fit = box_iou(box[None], true)[0]
                points = rng.uniform(box[:2], box[2:], (17, 2)), rng.uniform(0, 0.3, 17)
                if len(fit) and fit.max() > 0.3:
                    points = seen_keypoints(rng, sequence.walks, owner, ids[fit.argmax()], time_s)
                people.append((box, score, *points))
            poses = poses_of(people)
        out.append(tracker.update(poses, time_s, detected=not frame % every))
    return out


def judge(pairs):
    """Return HOTA, MOTA, IDF1 and switches of (sequence, tracked) pairs together."""
    try:
        from trackeval.metrics import CLEAR, HOTA, Identity
    except ImportError:
        raise SystemExit("error: trackeval is not installed\nhint: pip install trackeval") from None

    quiet = {"PRINT_CONFIG": False}
    metrics = HOTA(), CLEAR(quiet), Identity(quiet)
    results = [{} for _ in metrics]
    for number, (sequence, tracked) in enumerate(pairs):
        data = as_trackeval(sequence, tracked)
        for metric, result in zip(metrics, results, strict=True):
            result[number] = metric.eval_sequence(data)
    hota, clear, identity = (
        metric.combine_sequences(result) for metric, result in zip(metrics, results, strict=True)
    )
    return hota["HOTA"].mean(), clear["MOTA"], identity["IDF1"], clear["IDSW"]


def as_trackeval(sequence, tracked):
    """Return one sequence as trackeval's metrics take it: identities counted from 0."""
    names = {}
    for poses in tracked:
        for identity in poses.track_ids_N.tolist():
            names.setdefault(identity, len(names))
    found_ids = [np.array([names[i] for i in poses.track_ids_N.tolist()], int) for poses in tracked]
    return {
        "num_timesteps": len(tracked),
        "num_gt_ids": len(sequence.walks),
        "num_tracker_ids": len(names),
        "num_gt_dets": sum(len(ids) for ids, _ in sequence.truth),
        "num_tracker_dets": sum(len(ids) for ids in found_ids),
        "gt_ids": [ids for ids, _ in sequence.truth],
        "tracker_ids": found_ids,
        "similarity_scores": [
            box_iou(boxes, poses.boxes.xyxy_N4)
            for (_, boxes), poses in zip(sequence.truth, tracked, strict=True)
        ],
    }


def paint(sequence, background, frame, tracked):
    """Return a frame as a picture, with the tracker's boxes and identities."""
    picture = background.copy()
    for walk in sequence.walks:
        part, where, _ = place(walk, sequence.times[frame], 1)
        x1, y1, x2, y2 = np.round(walk.box(sequence.times[frame])).astype(int)
        body = cv2.resize(walk.person.picture, (x2 - x1, y2 - y1))
        body = body[
            where[0].start - y1 : where[0].stop - y1, where[1].start - x1 : where[1].stop - x1
        ]
        picture[where][part] = body[part]
    for identity, box in zip(tracked.track_ids_N.tolist(), tracked.boxes.xyxy_N4, strict=True):
        colour = tuple(int(c) for c in np.random.default_rng(identity).integers(80, 256, 3))
        x1, y1, x2, y2 = np.round(box).astype(int).tolist()
        cv2.rectangle(picture, (x1, y1), (x2, y2), colour, 3)
        cv2.putText(picture, str(identity), (x1 + 4, y1 + 40), 0, 1.5, colour, 4)
    return picture


def main():
    """Print the table, and draw a sheet of a sequence where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with annotations/ and SPLIT/"
    )
    parser.add_argument("--split", default="val2017")
    parser.add_argument(
        "--sheet", type=Path, help="write a picture of frames of the first sequence"
    )
    arguments = parser.parse_args()
    people, backgrounds = read_cut_outs(arguments.data, arguments.split)
    uneven = np.cumsum(np.random.default_rng(0).choice([0.02, 0.04, 0.12], 190))
    rates = {
        "25": np.arange(0, SECONDS, 1 / 25),
        "5": np.arange(0, SECONDS, 1 / 5),
        "uneven": uneven[uneven < SECONDS],
    }
    print(f"{len(people)} people cut out; Python {platform.python_version()}, {np.__version__=}")
    print(f"{SEQUENCES} sequences of {SECONDS:g} s, {PEOPLE[0]} to {PEOPLE[1] - 1} people each.\n")
    print("| frames/s | tracker | HOTA | MOTA | IDF1 | switches |")
    print("|---|---|---|---|---|---|", flush=True)
    for rate, times in rates.items():
        sequences = [make_sequence(seed, people, times) for seed in range(SEQUENCES)]
        ways = {
            "IoU greedy": lambda s, _: track(s, IouGreedy()),
            "ours, boxes only": lambda s, _: track(s, Ours(keypoints=False)),
            "ours": lambda s, _: track(s, Ours()),
        }
        if rate == "25":
            ways["ours, detector in every 5th frame"] = lambda s, n: track_between(s, 5, n)
        for name, way in ways.items():
            pairs = [(sequence, way(sequence, n)) for n, sequence in enumerate(sequences)]
            hota, mota, idf1, switches = judge(pairs)
            row = f"{hota:.3f} | {mota:.3f} | {idf1:.3f} | {switches}"
            print(f"| {rate} | {name} | {row} |", flush=True)
            if arguments.sheet and rate == "25" and name == "ours":
                shown = range(0, len(times), 10)
                tiles = [
                    cv2.resize(paint(sequences[0], backgrounds[0], f, pairs[0][1][f]), (426, 240))
                    for f in shown
                ]
                rows = [np.hstack(tiles[i : i + 5]) for i in range(0, len(tiles), 5)]
                cv2.imwrite(str(arguments.sheet), np.vstack(rows))


if __name__ == "__main__":
    main()

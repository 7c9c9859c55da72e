"""Small frames and poses for tests."""

import numpy as np
import torch

from hrnet_cli import targets
from hrnet_cli.schema import KeypointSchema, load_schema
from hrnet_cli.structures import Boxes, Frame, Poses


def make_frame(name="photo.jpg", *, width=64, height=48, **fields) -> Frame:
    """Return a grey picture called ``name``, also as its source unless given."""
    image_HW3 = np.full((height, width, 3), 128, np.uint8)
    return Frame(image_HW3, fields.pop("source", name), name, **fields)


def make_poses(people=2, schema: KeypointSchema | str = "coco17", **fields) -> Poses:
    """Return people 20 pixels apart; keypoint k of the first is at (k, k + 0.5), score 0.5.

    Args:
        people: How many.
        schema: Built-in name, or a schema.
        fields: Fields of `Poses` to set instead, such as ``track_ids_N``.
    """
    schema = load_schema(schema) if isinstance(schema, str) else schema
    shift_N1 = 20.0 * np.arange(people)[:, None]
    steps_K = np.arange(len(schema), dtype=np.float32)
    keypoints_NK2 = np.stack(
        [steps_K + shift_N1, np.broadcast_to(steps_K + 0.5, (people, len(schema)))], axis=-1
    )
    boxes = Boxes(np.array([1.0, 2.0, 11.0, 42.0]) + shift_N1 * [1, 0, 1, 0], np.full(people, 0.9))
    defaults = {
        "keypoints_NK2": keypoints_NK2,
        "scores_NK": np.full((people, len(schema)), 0.5),
        "person_scores_N": np.full(people, 0.45),
        "boxes": boxes,
        "schema": schema,
    }
    return Poses(**(defaults | fields))


def encode_targets(keypoints_NK2, visible_NK, input_hw, codec, sigma):
    """Return targets and weights of `targets.encode` as arrays, worked out in float64."""
    points = torch.from_numpy(np.array(keypoints_NK2, np.float64))
    visible = torch.from_numpy(np.array(visible_NK, np.float32))
    heatmaps, weights = targets.encode(points, visible, input_hw, codec, sigma)
    return heatmaps.numpy(), weights.numpy()

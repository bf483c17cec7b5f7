"""Tables of whether a world obeys: actions read back, there and back, pushes."""

from __future__ import annotations

from typing import Any

from astra_gym.evaluation.intervals import with_interval
from astra_gym.evaluation.markdown import table

Values = dict[str, Any]


def actions_table(actions: Values) -> str:
    """R² of each number of the action by the frames that it is read from; and the camera's pose errors."""
    columns = [
        label if counts else f"{label} (left out)"
        for label, counts in zip(actions["labels"], actions["counts"], strict=True)
    ]
    rows = []
    for name, scores in actions["r2"].items():
        mean = "–" if actions["mean"] is None else with_interval(actions["mean"][name], 2)
        rows.append((name, [mean, *("–" if score is None else f"{score:z.2f}" for score in scores)]))
    swapped = f" (those of {actions['swapped_with']})" if "swapped_with" in actions else ""
    text = (
        "Actions read back from frames by a small network that learned from true ones: R² over "
        f"{actions['blocks']} blocks of {actions['clips']} held-out clips, with 95 % intervals. Left out of the mean "
        f"are numbers that do not show on true frames (R² below {actions['least_true']:g}). Dreams also without the "
        "action, with another clip's actions, without noise on the history, and with other experts"
        f"{swapped}:\n\n" + table("read from", ["mean", *columns], rows)
    )
    if share := actions["share_of_true"]:
        text += f"\n\nDream as a share of true frames: {with_interval(share, 2)}."
    return text + (f"\n\n{_pose_table(actions['poses'])}" if "poses" in actions else "")


def _pose_table(poses: Values) -> str:
    columns = [
        f"rotation, share of the commanded one ({poses['turns']} clips)",
        f"direction of translation, degrees ({poses['moves']} clips)",
    ]
    rows = [
        (name, [with_interval(error, digits) if error else "–" for error, digits in _errors(poses[name])])
        for name in ("true frames", "autoencoder", "dream")
    ]
    return (
        f"Median errors of the camera's pose after {poses['blocks']} blocks, found by what it left behind, against the "
        "commanded one:\n\n" + table("read from", columns, rows)
    )


def _errors(errors: Values) -> list[tuple[Values | None, int]]:
    return [(errors["rotation_error"], 2), (errors["direction_degrees"], 1)]


def back_table(back: Values) -> str:
    """PSNR of the last view of each journey to the first one and to others."""
    rows = []
    for name, course in back["journeys"].items():
        for where in ("dream", "simulator"):
            seen = course[where]
            cells = [f"{seen[key]:.1f}" for key in ("to_first", "to_farthest", "to_other")]
            rows.append((f"{name}, {where}", [*cells, with_interval(seen["closer_than_other"], 1)]))
    return (
        f"There and back, from {back['starts']} held-out starts: PSNR in dB of the last view to the first, to the "
        "farthest one of the journey, and to random other views of the same scene:\n\n"
        + table("journey", ["first", "farthest", "other", "first above other"], rows)
    )


def pushing_table(pushing: Values) -> str:
    """Share of pushes that move the block the right way."""
    directions = list(pushing["dream"]["right_way_by_direction"])
    rows = []
    for where in ("dream", "simulator"):
        seen = pushing[where]
        way = "–" if seen["centimetres"] is None else f"{seen['centimetres']:.1f}"
        by_blocks = " / ".join(f"{share:.2f}" for share in seen["right_way_by_blocks"])
        shares = [f"{seen['right_way_by_direction'][direction]:.2f}" for direction in directions]
        rows.append((where, [with_interval(seen["right_way"], 2), by_blocks, *shares, f"{seen['seen']:.2f}", way]))
    detector, counted = pushing["detector"], " / ".join(map(str, range(1, pushing["push_blocks"] + 1)))
    return (
        f"Pushed from beside, {pushing['starts']} held-out starts: share of blocks that move at least 2 cm and within "
        "45 degrees of the push, as a colour detector sees it. In the simulator it is right in "
        f"{detector['agrees']:.0%} of the pushes, {detector['error_centimetres']:.1f} cm off on average:\n\n"
        + table(
            "in the",
            ["moved the right way", f"after {counted} blocks", *directions, "block seen", "cm along the push"],
            rows,
        )
    )

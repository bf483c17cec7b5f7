"""Judge a world on held-out scenes and write the figures down."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from astra_gym.evaluation import report
from astra_gym.evaluation.report import Figures
from astra_gym.files import write_json

if TYPE_CHECKING:
    from astra_gym.bundles import Bundle

Part = Literal["fidelity", "drift", "control", "actions", "back", "pushing", "routing", "speed"]

_SCENES = ("data", "episodes", "seed")
DECIDING: dict[Part, tuple[str, ...]] = {
    "fidelity": (*_SCENES, "context", "clips", "horizons", "steps"),
    "drift": (*_SCENES, "context", "drift_blocks", "drift_worlds", "agent"),
    "control": (*_SCENES, "context", "control_starts"),
    "actions": (*_SCENES, "context", "clips", "reader_blocks", "reader_steps"),
    "back": (*_SCENES, "context", "journeys"),
    "pushing": ("seed", "pushes"),
    "routing": ("data", "seed", "context"),
    "speed": ("device",),
}
"""The arguments that decide a part's figures, beside the weights."""
_MADE_BY = {"reward": "fidelity", "termination": "fidelity"}
"""The part that makes figures of another name."""


@dataclass
class EvaluateArgs:
    """Compare a world with its simulators on held-out scenes: fidelity, heads, drift, whether it obeys, routing, speed.

    The report joins in what astra-gym rank, transfer and plan have measured, where their folders are under ``runs``.
    """

    world: str = "small"
    """Name of a bundled world, or the folder of one."""
    data: Path = Path("data")
    """Folder with the datasets of held-out episodes, <scenario>/val; "actions" also takes <scenario>/train."""
    scenarios: tuple[str, ...] = ("all",)
    """Scenarios to judge: names, or "all" for those of the world. Others keep earlier figures, see parts."""
    clips: int = 64
    """Most clips of a scenario for fidelity and the reward head, spread over the episodes."""
    context: int = 16
    """True blocks that the world is shown before it goes on by itself."""
    horizons: tuple[int, ...] = (1, 2, 4, 8, 16, 24)
    """Blocks ahead at which fidelity is measured."""
    steps: tuple[int, ...] = (1, 2, 4)
    """Numbers of denoising steps to compare; the world's default is always among them and used for all else."""
    drift_blocks: tuple[int, ...] = (1, 8, 24, 100, 500)
    """Blocks of its own history after which drift is measured."""
    drift_worlds: int = 32
    """Most worlds of a scenario for the drift measure, each of another episode; with eight, sharpness after hundreds of
    blocks differed by a tenth from run to run."""
    agent: str = "scripted"
    """Agent that drives there; in other scenarios the actions are those of held-out episodes."""
    control_starts: int = 12
    """Starts from which left, right, gas and brake are tried (Drive)."""
    reader_blocks: int = 16_000
    """True blocks of <scenario>/train from which a small network learns to read actions from frames."""
    reader_steps: int = 1_000
    """Batches that it learns from; its weights are kept in the output folder."""
    journeys: int = 32
    """Starts from which the world goes somewhere and back."""
    pushes: int = 48
    """Starts from which a block is pushed (Manipulation)."""
    batch: int = 32
    """Worlds rolled at a time in the other measures."""
    episodes: int | None = None
    """Most held-out episodes of a scenario; None for all."""
    parts: tuple[Part, ...] = ("fidelity", "drift", "control", "actions", "back", "pushing", "routing", "speed")
    """What to measure; "fidelity" includes the heads, "actions" reads them back from frames (for the camera its pose),
    "back" is there and back, "routing" compares all scenarios of the world. Other parts keep earlier figures of the
    same weights and settings; those of others go."""
    resume: bool = False
    """Leave out what the output folder already has of the same weights and settings, as after an interruption."""
    quick: bool = False
    """Measure little of everything, in a few minutes: to see that all works. The figures, in the folder quick/ of the
    output, are not to be relied on."""
    seed: int = 0
    """Of the choice of clips and of the worlds."""
    device: str = "cpu"
    """Of the model, such as cpu or cuda."""
    ray: str | None = None
    """Judge the parts of the scenarios at the same time on the workers of a Ray cluster: "local" starts one on this
    machine, "auto" or host:port joins one. Its machines must see the same folders. Routing, then speed, are measured
    here."""
    output: Path = Path("runs/evaluate")
    """Folder for figures.json, report.html, report.md and pictures."""
    runs: Path = Path("runs")
    """Folder under which the report looks for rank/, transfer/ and plan/, of those commands."""
    write_docs: bool = False
    """Write the tables between the markers of README.md (a summary) and the model card (all), and the pictures to
    docs/figures."""


def evaluate(args: EvaluateArgs) -> Figures:
    """Measure what ``args.parts`` names, write it to ``args.output`` and return all figures, a dict by part.

    The same arguments and weights on the same machine give the same figures, those of speed aside. What has been
    measured is written after each part of a scenario, so that an interruption loses little; beside it, under
    "settings", are the arguments that decided it.

    Raises:
        ValueError: on an argument that cannot be, such as a scenario that the world does not know.
        FileNotFoundError: if there are no held-out episodes or no world.
        ConnectionError: if ``args.ray`` names no cluster that can be joined.
        ImportError: if it names one and Ray is not installed, or matplotlib, SciPy or scikit-image are not.
    """
    from astra_gym.bundles import PRETRAINED, bundled_worlds, fingerprint, load_bundle
    from astra_gym.data.episodes import data_fingerprint
    from astra_gym.data.storage import open_storage
    from astra_gym.evaluation.on_cluster import judge_on_cluster
    from astra_gym.evaluation.routing import judge_routing
    from astra_gym.evaluation.scenario import PARTS
    from astra_gym.evaluation.speed import measure_speed

    _check(args)
    args = quickened(args) if args.quick else args
    bundle = load_bundle(args.world, device=args.device)
    everything = bundle.scenarios
    scenarios = _chosen(args.scenarios, everything)
    needed = scenarios if set(args.parts).intersection(PARTS) else []
    for name in everything if "routing" in args.parts else needed:
        open_storage(args.data / name / "val")
    for name in scenarios if "actions" in args.parts else []:
        open_storage(args.data / name / "train")
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.output / "figures.json"
    content = cache(data_fingerprint)  # which takes some seconds, so only of what is asked for, and once

    def settings(part: str, names: Sequence[str]) -> dict[str, Any]:
        return _settings(args, part, {label: content(folder) for label, folder in _taken(args, part, names).items()})

    figures: dict[str, Any] = {"world": str(args.world), "weights": fingerprint(bundle), "seed": args.seed}
    figures |= _kept(file, figures["weights"], everything, settings)
    wanted = [
        (name, part)
        for name in needed
        for part in PARTS
        if part in args.parts and not (args.resume and part in figures["settings"]["scenarios"][name])
    ]
    for name, part, found in judge_on_cluster(args, wanted) if args.ray else _judge_here(args, bundle, wanted):
        figures["scenarios"][name] |= found
        figures["settings"]["scenarios"][name][part] = settings(part, [name])
        write_json(file, figures)
    if "routing" in args.parts and not (args.resume and "routing" in figures):
        figures["routing"] = judge_routing(bundle, args.data, everything, args.context, args.seed)
        figures["settings"]["routing"] = settings("routing", everything)
        write_json(file, figures)
    if "speed" in args.parts and not (args.resume and "speed" in figures):
        figures["speed"] = measure_speed(args.world, args.device, everything[0], steps=20 if args.quick else 200)
        figures["settings"]["speed"] = settings("speed", everything)
    write_json(file, figures)
    report.write(figures, args.output, args.runs)
    if args.write_docs:
        folder = PRETRAINED / args.world if args.world in bundled_worlds() else Path(args.world)
        report.write_docs(figures, args.output, Path("README.md"), folder / "README.md")
    return Figures(figures)


def _settings(args: EvaluateArgs, part: str, contents: dict[str, str]) -> dict[str, Any]:
    """What decides a part's figures, as JSON has it: arguments, and fingerprints of the datasets that it takes."""
    chosen = {name: getattr(args, name) for name in DECIDING[cast(Part, part)]} | {"contents": contents}
    return json.loads(json.dumps(chosen, default=str))


def _taken(args: EvaluateArgs, part: str, scenarios: Sequence[str]) -> dict[str, Path]:
    """The datasets that a part of these scenarios takes and that are there."""
    splits = {"pushing": (), "speed": (), "actions": ("val", "train")}.get(part, ("val",))
    folders = {f"{name}/{split}": args.data / name / split for name in scenarios for split in splits}
    return {label: folder for label, folder in folders.items() if (folder / "metadata.json").exists()}


def _kept(
    file: Path, weights: str, scenarios: Sequence[str], settings: Callable[[str, Sequence[str]], dict[str, Any]]
) -> dict[str, Any]:
    """The figures in a file that are of these weights and of each part's present settings, and these settings.

    Data that is not there any more is not asked for.
    """
    earlier = json.loads(file.read_text()) if file.exists() else {}
    measured = earlier.get("settings", {}) if earlier.get("weights") == weights else {}

    def same(of: dict[str, Any] | None, part: str, names: Sequence[str]) -> bool:
        if of is None:
            return False
        present = settings(part, names)
        return present == of | {"contents": {label: of.get("contents", {}).get(label) for label in present["contents"]}}

    figures: dict[str, Any] = {"scenarios": {}, "settings": {"scenarios": {}}}
    for name in scenarios:
        parts = measured.get("scenarios", {}).get(name, {})
        kept = {part: its for part, its in parts.items() if same(its, part, [name])}
        found = earlier["scenarios"][name].items() if kept else ()
        figures["scenarios"][name] = {key: values for key, values in found if _MADE_BY.get(key, key) in kept}
        figures["settings"]["scenarios"][name] = kept
    for part in ("routing", "speed"):
        if same(measured.get(part), part, scenarios):
            figures[part], figures["settings"][part] = earlier[part], measured[part]
    return figures


def _judge_here(
    args: EvaluateArgs, bundle: Bundle, wanted: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield each wanted scenario, part and its figures; as :func:`judge_on_cluster`, in this process."""
    from astra_gym.data.episodes import read_episodes
    from astra_gym.evaluation.scenario import judge_scenario

    for name, its_parts in groupby(wanted, key=itemgetter(0)):
        episodes = list(islice(read_episodes(args.data / name / "val"), args.episodes))
        for _, part in its_parts:
            yield name, part, judge_scenario(args, bundle, name, part, episodes)


def quickened(args: EvaluateArgs) -> EvaluateArgs:
    """The same with so few clips, starts, blocks and steps that all is measured in a few minutes, into a folder of its
    own."""
    return replace(
        args,
        clips=6,
        episodes=6,
        context=8,
        horizons=(1, 4),
        steps=(1,),
        drift_blocks=(1, 24),
        drift_worlds=2,
        control_starts=2,
        reader_blocks=1_500,
        reader_steps=60,
        journeys=2,
        pushes=3,
        batch=6,
        output=args.output / "quick",
    )


def _check(args: EvaluateArgs) -> None:
    for package in ("matplotlib", "scipy", "skimage"):
        if find_spec(package) is None:
            raise ImportError(f'evaluate: {package} is not installed; pip install "astra-gym[eval]"')
    if args.quick and args.write_docs:
        raise ValueError("write_docs: got True with quick, whose figures say nothing; allowed is False")
    counts = ("clips", "context", "episodes", "drift_worlds", "control_starts", "journeys", "pushes", "batch")
    for name in (*counts, "reader_blocks", "reader_steps"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ValueError(f"{name}: got {getattr(args, name)}, allowed are whole numbers from 1")
    for name in ("horizons", "drift_blocks", "steps"):
        values = getattr(args, name)
        if not values or list(values) != sorted(set(values)) or values[0] < 1:
            raise ValueError(f"{name}: got {values}, allowed are rising whole numbers from 1")


def _chosen(names: tuple[str, ...], everything: list[str]) -> list[str]:
    if names == ("all",):
        return everything
    if not names or set(names) - set(everything):
        raise ValueError(f"scenarios: got {list(names)}, this world has {everything}; or 'all' alone")
    return [name for name in everything if name in names]

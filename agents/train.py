"""Learn to act in a world with PPO or SAC of Stable-Baselines3: ``python scripts/train_agent.py AstraDrive-v0``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import tyro
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor
from tqdm import tqdm

from astra_gym.agents.disagreement import DisagreementPenalty
from astra_gym.agents.features import FEATURES
from astra_gym.agents.policies import make_agent
from astra_gym.agents.replay import BlockReplayBuffer
from astra_gym.agents.rollout import is_simulator, make_block_env, run_episode
from astra_gym.agents.sb3 import algorithm_of, wrap_for_sb3
from astra_gym.agents.settings import load_settings, scenario_of, scenario_option, setting_names
from astra_gym.agents.vec_env import AstraVecEnv, VecScaledReward
from astra_gym.data.episodes import Episode, read_episodes
from astra_gym.envs.vector import AstraVectorEnv
from astra_gym.files import replacing, write_json

EVALUATION_SEEDS = range(10_000, 10_010)
"""Episodes that every policy is judged on; training draws its seeds elsewhere."""
LEARNERS: dict[str, type[BaseAlgorithm]] = {"ppo": PPO, "sac": SAC}


@dataclass
class TrainAgentArgs:
    """Train a policy on the frames of a world, with PPO or SAC.

    What is None by default is tuned for each scenario in agents/configs/, under the names that Stable-Baselines3 has.
    """

    env: tyro.conf.Positional[str] = "AstraDrive-v0"
    """Gymnasium id of an Astra environment or of one of its simulators (AstraSim/...)."""
    output: Path = Path("runs/agent")
    """Folder for the policy (policy.zip), the log for TensorBoard if that is installed, and the evaluation
    (evaluation.json)."""
    algorithm: Literal["ppo", "sac"] = "ppo"
    """Who learns: ppo from each block once, sac again and again from those that it remembers."""
    config: Path | None = None
    """YAML file of settings in place of the tuned ones, with the same sections: default and the scenarios' names."""
    resume: bool = False
    """Go on from the policy in the folder."""
    seed: int = 0
    """Of the policy's first weights, its exploration, and the episodes."""
    checkpoint_every: int = 5_000
    """Blocks between two saves of the policy."""
    keep_checkpoints: bool = False
    """Keep each save, and the policy before it has learned, beside the newest as policy_<blocks>.zip."""
    evaluation_episodes: int = 5
    """Episodes to judge the trained policy on, at most 10; 0 skips it. In a dream they are of the world's own
    temperature and beginnings."""
    evaluate_in_simulator: bool = False
    """Judge the policy in the true simulator too."""
    imitate: str | None = None
    """ppo: an agent whose actions are learned first, such as scripted, learned or the path of a policy; see
    agents/imitation.py."""
    imitate_blocks: int = 12_288
    """Blocks for that, which count as learned from; 12,288 take 0.6 GB of memory."""
    imitate_passes: int = 16
    """Passes over them in each of three rounds, at a learning rate that falls to nothing. Many passes over few scenes
    teach the scenes by heart."""
    imitate_push: float = 1.0
    """Size of the random actions that push the teacher off its way meanwhile, as a share of what is allowed."""
    imitate_augment: bool = False
    """Learn it from blocks moved by up to 4 pixels (Kostrikov et al. 2020, arXiv 2004.13649) and in other light, so
    that few scenes teach more."""
    imitate_recorded: bool = False
    """Learn it also from the true frames of the episodes in starts, which the imitated agent watches from their
    beginning; 49,152 bytes of memory a block. They do not count as learned from."""
    features: Literal["coarse", "fine"] = "coarse"
    """Network with which a new policy looks: fine sees things of few pixels, and costs some three times as much."""
    disagreement_penalty: float = 0.0
    """In a dream, what a reward loses for each unit of spread between what several draws of noise lead to; a latent's
    standard deviation over real frames is 1."""
    disagreement_draws: int = 2
    """Those draws, 2 to 4; each takes a part of a step's time."""
    world: str = "small"
    """Name of a bundled world or path of a world's folder."""
    scenario: str | None = None
    """For AstraWorld-v0: which of the world's scenarios; None where it has only one."""
    starts: Path | None = None
    """In a dream, folder of collected episodes of its simulator: any of their moments may be an episode's beginning,
    instead of the few of the world's own bank."""
    device: str = "cpu"
    """Where the world and the policy run, cpu or cuda."""

    timesteps: int | None = None
    """Blocks to learn from, those before a resume included."""
    num_envs: int | None = None
    """Episodes at a time: a world steps them together, a simulator in turn; more give more varied batches."""
    blocks: int | None = None
    """Longest episode, in blocks; a dream has less time to go astray in shorter ones, each from a real beginning."""
    temperature: float | None = None
    """In a dream, of what is left to chance; where the settings have none, the world's own. Who learns among more
    varied futures holds on less to the world's mistakes (Ha and Schmidhuber 2018, arXiv 1803.10122)."""
    reward_scale: float | None = None
    """What rewards are multiplied by before they are learned from; logs and evaluations show them unscaled."""
    learning_rate: float | None = None
    """Of Adam."""
    batch_size: int | None = None
    """Blocks in a gradient step."""
    gamma: float | None = None
    """Discount a block; 0.98 looks ahead 50 blocks, in Drive 4 seconds."""
    ent_coef: float | str | None = None
    """Weight of the bonus for exploring; for sac also auto, or auto_0.1 to begin with 0.1."""
    n_steps: int | None = None
    """ppo: blocks that each environment contributes to an update."""
    n_epochs: int | None = None
    """ppo: passes over an update's blocks."""
    gae_lambda: float | None = None
    """ppo: discount of advantage estimates."""
    clip_range: float | None = None
    """ppo: how far an update may change the odds of an action."""
    target_kl: float | None = None
    """ppo: an update that changes the policy more than this ends early."""
    log_std_init: float | None = None
    """ppo: natural logarithm of the actions' first standard deviation."""
    buffer_size: int | None = None
    """sac: blocks remembered, 49,152 bytes of memory each with frames of 64x64, and as much on disk."""
    learning_starts: int | None = None
    """sac: blocks of random actions before learning."""
    train_freq: int | None = None
    """sac: steps of all environments between two updates."""
    gradient_steps: int | None = None
    """sac: gradient steps an update."""
    tau: float | None = None
    """sac: how fast the target network follows."""

    def __post_init__(self) -> None:
        allowed = len(EVALUATION_SEEDS)
        if not 0 <= self.evaluation_episodes <= allowed:
            raise ValueError(f"evaluation_episodes: got {self.evaluation_episodes}, allowed are 0 to {allowed}")
        if self.imitate is not None and self.algorithm != "ppo":
            raise ValueError(f"imitate: got {self.imitate!r} with {self.algorithm}, allowed is None")
        for name in ("imitate_blocks", "imitate_passes", "checkpoint_every"):
            if (number := getattr(self, name)) < 1:
                raise ValueError(f"{name}: got {number}, allowed are whole numbers from 1")
        if not 0 <= self.imitate_push <= 1:
            raise ValueError(f"imitate_push: got {self.imitate_push}, allowed are numbers from 0 to 1")
        if self.imitate_recorded and (self.imitate is None or self.starts is None):
            raise ValueError("imitate_recorded: got True without imitate and starts, allowed is False")
        if not 2 <= self.disagreement_draws <= 4:
            raise ValueError(f"disagreement_draws: got {self.disagreement_draws}, allowed are 2 to 4")
        if not 0 <= self.disagreement_penalty < np.inf:
            raise ValueError(f"disagreement_penalty: got {self.disagreement_penalty}, allowed are numbers from 0")

    @property
    def options(self) -> dict[str, Any]:
        """Further arguments for the environment; a ValueError if it takes no scenario and one is named."""
        return scenario_option(self.env, self.scenario)

    @property
    def policy(self) -> Path:
        """The file of the policy."""
        return self.output / "policy.zip"

    @property
    def replay(self) -> Path:
        """The file of what SAC remembers."""
        return self.output / "replay.npz"

    def settings(self) -> dict[str, Any]:
        """All settings of the learner: the tuned ones, those of ``config``, those given.

        Raises:
            ValueError: naming the setting that is wrong or not one of the algorithm's.
        """
        scenario = self.options.get("scenario") or scenario_of(self.env)
        given = {name: getattr(self, name) for name in setting_names() if getattr(self, name) is not None}
        settings = load_settings(self.algorithm, scenario, given, self.config)
        if self.algorithm == "ppo" and (blocks := settings["num_envs"] * settings["n_steps"]) % settings["batch_size"]:
            raise ValueError(
                f"batch_size: got {settings['batch_size']}, allowed are divisors of {blocks}, num_envs * n_steps"
            )
        return settings


class SaveAndShow(BaseCallback):
    """Save the policy now and then, whole at any moment, and show how far the training is."""

    def __init__(self, args: TrainAgentArgs, total: int):
        super().__init__()
        self.args, self.total = args, total

    def _on_training_start(self) -> None:
        done = self.model.num_timesteps
        self.next_save = done + self.args.checkpoint_every
        self.bar = tqdm(total=self.total, initial=done, desc=self.args.algorithm, unit="block")
        if done == 0 and self.args.keep_checkpoints:
            save_model(self.model, self.args)

    def _on_step(self) -> bool:
        self.bar.update(self.num_timesteps - self.bar.n)
        for info in self.locals["infos"]:
            if "spread" in info:
                self.logger.record_mean("rollout/spread", float(info["spread"]))
        return True

    def _on_rollout_end(self) -> None:
        returns = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        if returns:
            self.bar.set_postfix({"return": f"{np.mean(returns):.1f}"}, refresh=False)

    def _on_rollout_start(self) -> None:
        # Between two updates: what is saved contains the last one in full.
        if self.num_timesteps >= self.next_save:
            self.next_save = self.num_timesteps + self.args.checkpoint_every
            save_model(self.model, self.args)

    def _on_training_end(self) -> None:
        self.bar.close()
        save_model(self.model, self.args)


def save_model(model: BaseAlgorithm, args: TrainAgentArgs) -> None:
    """Write policy and memory so that a kill at any moment leaves the old files or the new ones."""
    args.output.mkdir(parents=True, exist_ok=True)
    if isinstance(model, SAC):
        assert isinstance(model.replay_buffer, BlockReplayBuffer)
        model.replay_buffer.save(args.replay)
    paths = [args.policy]
    if args.keep_checkpoints:
        paths.append(args.output / f"policy_{model.num_timesteps}.zip")
    for path in paths:
        with replacing(path) as unfinished:
            model.save(unfinished)


def make_vec_env(args: TrainAgentArgs, settings: dict[str, Any]) -> VecEnv:
    """``num_envs`` environments in the form that SB3 learns from; their logs have the rewards as they are.

    Raises:
        FileNotFoundError: if there are no episodes to begin from.
        ValueError: if a penalty for disagreement, beginnings or a temperature are asked for where there is no model.
    """
    num_envs, blocks, scale = settings["num_envs"], settings["blocks"], settings["reward_scale"]
    if not is_simulator(args.env):
        worlds = gym.make_vec(
            args.env,
            num_envs=num_envs,
            max_episode_steps=blocks,
            world=args.world,
            device=args.device,
            autoreset_mode="SameStep",
            copy=False,
            info_spread=args.disagreement_draws if args.disagreement_penalty else 0,
            starts=args.starts,
            temperature=settings["temperature"],
            **args.options,
        )
        assert isinstance(worlds, AstraVectorEnv)
        venv: VecEnv = VecMonitor(AstraVecEnv(worlds))
        if args.disagreement_penalty:
            venv = DisagreementPenalty(venv, args.disagreement_penalty)
        return VecScaledReward(venv, scale)

    if args.disagreement_penalty:
        raise ValueError(f"disagreement_penalty: {args.env} is a simulator, allowed is 0")
    for name, value in (("starts", args.starts), ("temperature", args.temperature)):
        if value is not None:
            raise ValueError(f"{name}: got {str(value)!r}, but {args.env} is a simulator, allowed is None")

    def make() -> gym.Env:
        return wrap_for_sb3(Monitor(make_block_env(args.env, blocks)), scale)

    makers: list[Callable[[], gym.Env]] = [make] * num_envs
    return DummyVecEnv(makers)


def make_model(args: TrainAgentArgs, settings: dict[str, Any], envs: VecEnv) -> BaseAlgorithm:
    """The learner that ``args`` ask for: a new one, or with ``resume`` that of the folder.

    Raises:
        FileExistsError: if the folder holds a policy and ``resume`` is off.
        FileNotFoundError: if it holds none, or not SAC's memory, and ``resume`` is on.
        ValueError: if it holds that of another algorithm.
    """
    learner = LEARNERS[args.algorithm]
    own = ("timesteps", "num_envs", "blocks", "temperature", "reward_scale", "log_std_init")
    options = {name: value for name, value in settings.items() if name not in own}
    options["tensorboard_log"] = str(args.output) if find_spec("tensorboard") else None
    if args.algorithm == "sac":
        # Every observation once; the buffer knows which steps a time limit has cut.
        options |= {"optimize_memory_usage": True, "replay_buffer_class": BlockReplayBuffer}
        options["replay_buffer_kwargs"] = {"handle_timeout_termination": False}
    if args.resume:
        model = learner.load(args.policy, envs, args.device, **options)
        # Other episodes than those before, and the same ones for the same state of training.
        model.set_random_seed(args.seed + model.num_timesteps)
        if isinstance(model, SAC):
            assert isinstance(model.replay_buffer, BlockReplayBuffer)
            model.replay_buffer.load(args.replay)
        return model
    kwargs: dict[str, Any] = {"features_extractor_class": FEATURES[args.features]}
    if args.algorithm == "sac":
        kwargs["net_arch"] = [256, 256]
    else:
        kwargs["log_std_init"] = settings["log_std_init"]
    return learner("CnnPolicy", envs, seed=args.seed, device=args.device, policy_kwargs=kwargs, **options)


def check_folder(args: TrainAgentArgs) -> None:
    """Raise an error that says what to do if the folder does not hold what ``args`` need."""
    if args.policy.exists() and not args.resume:
        raise FileExistsError(f"output: {args.policy} exists; go on with --resume or name another folder")
    if not args.resume:
        return
    for path in (args.policy, args.replay) if args.algorithm == "sac" else (args.policy,):
        if not path.exists():
            raise FileNotFoundError(f"resume: there is no {path}")
    if (found := algorithm_of(args.policy)) != args.algorithm:
        raise ValueError(f"algorithm: got {args.algorithm!r}, allowed is {found!r}, as {args.policy} has it")


def train_agent(args: TrainAgentArgs) -> Path:
    """Train the policy that ``args`` asks for, judge it, and return its file.

    Raises:
        FileExistsError: if the folder holds a policy and ``resume`` is off.
        FileNotFoundError: if it holds none, or not SAC's memory, and ``resume`` is on.
        ValueError: if a setting is wrong, or the environment cannot be learned from.
        ImportError: if the policy shall be judged in the simulator and that is not installed.
    """
    check_folder(args)
    settings = args.settings()
    judges = judges_of(args, settings["blocks"]) if args.evaluation_episodes else []
    envs = make_vec_env(args, settings)
    model = make_model(args, settings, envs)
    if args.imitate is not None and model.num_timesteps == 0:
        have_a_head_start(args, settings["blocks"], model, envs)
    todo = max(0, settings["timesteps"] - model.num_timesteps)
    if todo:
        progress = SaveAndShow(args, settings["timesteps"])
        model.learn(todo, progress, tb_log_name=args.algorithm, reset_num_timesteps=model.num_timesteps == 0)
    envs.close()
    evaluate_policy(args, settings["blocks"], judges)
    return args.policy


def have_a_head_start(args: TrainAgentArgs, blocks: int, model: BaseAlgorithm, envs: VecEnv) -> None:
    """Let the policy first do as ``args.imitate`` does, and save what it has become."""
    from astra_gym.agents.imitation import Lessons, imitate

    assert args.imitate is not None and isinstance(model, PPO)
    with make_block_env(args.env, blocks, args.world, args.device, **args.options) as env:
        try:
            teachers = [make_agent(args.imitate, env) for _ in range(envs.num_envs)]
        except ValueError as error:
            raise ValueError(f"imitate: {str(error).removeprefix('agent: ')}") from error
        if args.keep_checkpoints:
            save_model(model, args)
        assert isinstance(env.action_space, gym.spaces.Box)
        scenario = env.get_wrapper_attr("modality").name
        lessons = Lessons(args.imitate_blocks, args.imitate_passes, args.imitate_push, args.imitate_augment)
        recorded: Iterable[Episode] = ()
        if args.imitate_recorded and args.starts is not None:
            recorded = read_episodes(args.starts)
        imitate(model, envs, teachers, env.action_space, scenario, lessons, recorded)
    save_model(model, args)


def judges_of(args: TrainAgentArgs, blocks: int) -> list[str]:
    """Ids of the environments in which the policy is judged, the simulator made once to see that it can be."""
    ids = [args.env]
    if args.evaluate_in_simulator and not is_simulator(args.env):
        with make_block_env(args.env, blocks, args.world, args.device, **args.options) as env:
            ids.append(env.get_wrapper_attr("simulator_id"))
        make_block_env(ids[-1], blocks).close()
    return ids


def evaluate_policy(args: TrainAgentArgs, blocks: int, ids: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Returns of the policy and of random actions, by environment; also in evaluation.json beside it."""
    results: dict[str, dict[str, list[float]]] = {}
    for env_id in ids:
        options = args.options if env_id == args.env else {}
        env = make_block_env(env_id, blocks, args.world, args.device, **options)
        results[env_id] = {}
        for name in (str(args.policy), "random"):
            agent = make_agent(name, env)
            seeds = tqdm(EVALUATION_SEEDS[: args.evaluation_episodes], f"judge in {env_id}", leave=False)
            returns = [sum(step.reward for step in run_episode(env, agent, seed)) for seed in seeds]
            results[env_id][Path(name).stem] = returns
            tqdm.write(f"{env_id}, {Path(name).stem}: return {np.mean(returns):.1f} ± {np.std(returns):.1f}")
        env.close()
        write_json(args.output / "evaluation.json", results)
    return results

"""Learn to act in a world with PPO: ``python scripts/train_agent.py --help``."""

import tyro

from astra_gym.agents.train import TrainAgentArgs, train_agent

if __name__ == "__main__":
    print(train_agent(tyro.cli(TrainAgentArgs)))

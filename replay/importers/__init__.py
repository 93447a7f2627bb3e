"""Importers: other projects' demonstrations (D4RL, Minari, JAT, DQN replay, RLlib) read as episodes, one at a time."""

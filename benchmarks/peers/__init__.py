"""Speeds against the models and workers that others would use: Hugging Face's Decision Transformer
and GPT-Neo, Gymnasium's AsyncVectorEnv, RLlib's EnvRunners and their broadcast of weights.

    pip install -e '.[peers]'
    python -m benchmarks.peers [acting] [training] [environments] [weights]

A ratio in one run for each, the peers' versions with it; sampling against TorchRL and a DataLoader
is in benchmarks.replay. Weights are random: what a model chooses takes as long whatever they are.
"""

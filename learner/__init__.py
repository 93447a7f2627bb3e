"""The learner: trains one Gato on batches from replay and publishes its weights."""

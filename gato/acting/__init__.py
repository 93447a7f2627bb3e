"""A policy acts step by step: its contexts, decoding and target returns."""

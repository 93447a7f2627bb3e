"""The decision-transformer run beside a plain Decision Transformer, on the same data."""

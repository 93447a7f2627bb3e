"""The network: embedding, decoder, attention, the cache of keys and values, and 8-bit layers."""

"""How a run stands, from its journal to the terminal."""

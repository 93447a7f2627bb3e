"""What the paper says (A Generalist Agent, arXiv 2205.06175), one test a statement; docs/paper.md
lists them all."""

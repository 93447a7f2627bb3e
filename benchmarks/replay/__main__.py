"""`python -m benchmarks.replay`."""

from benchmarks.replay.measure import main

if __name__ == "__main__":
    main()

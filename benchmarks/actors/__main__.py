"""`python -m benchmarks.actors`."""

from benchmarks.actors.measure import main

if __name__ == "__main__":
    main()

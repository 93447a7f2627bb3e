"""The count of `benchmarks.kills`: what led to the last weights, and what was made again."""

from benchmarks.kills import lineage


def log(first: int, *numbers: int) -> list[object]:
    """What a process notes that goes on from `first` and learns from batches of these numbers."""
    updates = [[first + i, [f"#{number}", f"k{number}"]] for i, number in enumerate(numbers)]
    return [[first], *updates]


def test_updates_after_the_checkpoint_of_a_killed_learner_are_made_again() -> None:
    kept, again = lineage([log(0, 0, 1, 2, 3), log(2, 2, 3, 4)])
    assert [update.number for update in kept] == [0, 1, 2, 3, 4]
    assert [before.step for before, _ in again] == [2, 3]


def test_a_batch_that_is_skipped_or_learned_from_twice_is_seen() -> None:
    skipped, _ = lineage([log(0, 0, 1), log(2, 3, 4)])
    assert [update.number for update in skipped] == [0, 1, 3, 4]
    twice, _ = lineage([log(0, 0, 1, 2), log(2, 1, 2)])
    assert [update.number for update in twice] == [0, 1, 1, 2]

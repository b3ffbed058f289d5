"""The state of `tf.data`'s interleave after some elements, without reading them."""

import heapq
from typing import NamedTuple

import numpy as np


class State(NamedTuple):
    """Where an interleave of shards stands.

    Attributes:
        shards: numbers of the open shards, in the order in which they are read from next.
        read: how many records of each open shard were read.
        opened: shards opened so far; those from this one on follow.
    """

    shards: list[int]
    read: list[int]
    opened: int


def state_after(position: int, counts: np.ndarray, cycle: int) -> State:
    """State of a deterministic interleave, block length 1, after `position` records.

    `cycle` slots hold a shard each, and each round takes a record from each slot. In the round in
    which a slot's shard turns out to be at its end, the slot gets the next shard and no record.

    Args:
        position: number of records, at most all.
        counts: int array, records of each shard, in order.
        cycle: number of slots, at most the number of shards.

    Example:
        >>> state_after(4, np.array([1, 5, 5]), cycle=2)  # of shards 0 1, 1, 2 1 by rounds
        State(shards=[2, 1], read=[0, 3], opened=3)
    """
    counts = np.asarray(counts)
    shard_of = list(range(cycle))
    since = [0] * cycle  # round in which a slot's shard gives its first record
    ends = [(int(counts[slot]), slot) for slot in range(cycle)]  # (round, slot), for the next shard
    heapq.heapify(ends)
    opened, given, round_number = cycle, 0, 0
    active = cycle
    while ends:
        next_end = ends[0][0]
        # Rounds before the next end take a record from each slot that has a shard.
        rounds = (position - given) // active if active else 0
        if rounds < next_end - round_number:
            round_number += rounds
            given += rounds * active
            break
        given += (next_end - round_number) * active
        round_number = next_end
        emitting = active - _ending(ends, next_end)
        if given + emitting > position:
            break
        while ends and ends[0][0] == next_end:
            _, slot = heapq.heappop(ends)
            if opened < len(counts):
                shard_of[slot], since[slot] = opened, next_end + 1
                heapq.heappush(ends, (next_end + 1 + int(counts[opened]), slot))
                opened += 1
            else:
                shard_of[slot] = None
                active -= 1
        given += emitting
        round_number += 1
    return _within_round(position - given, round_number, counts, shard_of, since, opened)


def _ending(ends, round_number):
    """How many slots find their shard at its end in a round."""
    return sum(end == round_number for end, _ in ends)


def _within_round(left, round_number, counts, shard_of, since, opened):
    """Takes `left` records of a round, slot by slot, and begins the next one there."""
    read = [round_number - first for first in since]
    slot = 0
    while left:
        shard = shard_of[slot]
        if shard is not None and read[slot] < counts[shard]:
            read[slot] += 1
            left -= 1
        elif shard is not None and opened < len(counts):
            shard_of[slot], read[slot] = opened, 0
            opened += 1
        else:
            shard_of[slot] = None
        slot += 1
    order = [s for s in (*range(slot, len(shard_of)), *range(slot)) if shard_of[s] is not None]
    return State([shard_of[s] for s in order], [read[s] for s in order], opened)

"""Layout of a global batch on hosts, replicas and BN groups."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class BatchLayout:
    """Layout of the rows of a global batch, 0..batch - 1, on hosts, replicas and BN groups.

    A host is a process that feeds the devices attached to it, a replica is one device, a BN group
    is the rows that share batch statistics. Each holds a range of consecutive rows: host 0 the
    first ones, within it replica 0 the first ones, within that the first group.

    Attributes:
        batch: rows of the global batch, B; a multiple of `replicas`.
        hosts: number of input pipelines; host h feeds rows [h * B / hosts, (h + 1) * B / hosts).
        replicas: number of replicas on all hosts together; a multiple of `hosts`.
        group: rows of a BN group, a divisor of a replica's rows; None for all rows of a replica.

    Example, two hosts of four GPUs each:
        >>> layout = BatchLayout(batch=256, hosts=2, replicas=8, group=16)
        >>> layout.host_rows, layout.replica_rows, layout.group_rows, layout.shuffling
        (128, 32, 16, 'input')
    """

    batch: int
    hosts: int = 1
    replicas: int = 1
    group: int | None = None

    @property
    def host_rows(self) -> int:
        """Rows that one host feeds."""
        return self.batch // self.hosts

    @property
    def replica_rows(self) -> int:
        """Rows on one replica."""
        return self.batch // self.replicas

    @property
    def group_rows(self) -> int:
        """Rows that share BN statistics."""
        return self.group or self.replica_rows

    @property
    def shuffling(self) -> str:
        """Place of shuffle-BN: "input" (within each host's batch), "step" or "none".

        If a host has several BN groups, the input pipeline permutes the key views, without a
        collective. If each of several hosts has one group, the step has to gather and permute
        them. If there is one group in all, there is nothing to shuffle.
        """
        if self.host_rows > self.group_rows:
            return "input"
        return "step" if self.batch > self.group_rows else "none"

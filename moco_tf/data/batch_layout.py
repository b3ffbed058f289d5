"""How a global batch lies on hosts, replicas and BN groups."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class BatchLayout:
    """Rows of the global batch are numbered 0..B-1, hosts and replicas hold them in order.

    Attributes:
        batch: rows of the global batch, B.
        hosts: input pipelines; host h feeds rows [h * B / hosts, (h + 1) * B / hosts).
        replicas: of all hosts together.
        group: rows that share BN statistics.
    """

    batch: int
    hosts: int = 1
    replicas: int = 1
    group: int | None = None

    @property
    def host_rows(self):
        """Rows that one host feeds."""
        return self.batch // self.hosts

    @property
    def replica_rows(self):
        """Rows on one replica."""
        return self.batch // self.replicas

    @property
    def group_rows(self):
        """Rows that share BN statistics."""
        return self.group or self.replica_rows

    @property
    def shuffling(self):
        """Where shuffle-BN happens: "input" (within each host's batch), "step" or "none".

        The input pipeline permutes where a host has several BN groups; one group on each of several
        hosts needs the gather in the step; with one group in all there is nothing to shuffle.
        """
        if self.host_rows > self.group_rows:
            return "input"
        return "step" if self.batch > self.group_rows else "none"

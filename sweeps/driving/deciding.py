"""What a driver has the scheduler decide: on the nodes that its limits leave, among the other sweeps of the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sweeps.driving.limiting import Limits
from sweeps.driving.nodes import Nodes
from sweeps.driving.sharing import RESTS, Among, within
from sweeps.scheduling import scheduler
from sweeps.scheduling.inventory import Inventory
from sweeps.scheduling.ledger import place
from sweeps.scheduling.scheduler import Decision, Hold, Job, Running, Start


@dataclass(frozen=True)
class Deciding:
    """Asks the scheduler."""

    limits: Limits
    nodes: Nodes
    among: Among

    def decide(
        self,
        now: float,
        queue: Sequence[Job],
        holding: Sequence[Running],
        others: Sequence[Running],
        *,
        cut: Inventory,
        usable: Inventory,
        alive: Inventory,
    ) -> list[Decision]:
        """One decision for every run of the queue, in its order, and who must stop for the first of them.

        Args:
            holding: of this sweep.
            others: all that somebody else holds.
            cut: of the usable nodes, what ``limit.devices`` leaves.
            usable: of the living nodes, those on which something may start.
        """
        self.among.look(now, holding)
        jobs, largest, rules = self.limits.ordered(queue), self.nodes.largest, self.limits.rules
        strangers = [*self.nodes.strangers(self.among.strangers(others), now), *self.among.held]
        nodes, lost = self.nodes.expected(usable, alive, now)
        held = [*holding, *strangers, *lost]
        most, wanted = self.limits.limit.devices, None
        if most is not None:
            wanted = list(within(sorted(jobs, key=lambda job: place(job, rules)), holding, most))
        if cut is usable:
            found = self.among.decide(now, nodes, jobs, held, largest, rules, wanted)
        else:  # a place within the limit, and then whether another sweep comes before it
            part, shown = self.limits.turned(cut, usable, jobs, holding, others)
            limited, _ = self.nodes.expected(part, alive, now)
            rests = rules.preempt and self.among.waited_for
            rules = replace(rules, preempt=rules.preempt and not rests)
            found = scheduler.decide(now, limited, jobs, [*shown, *strangers, *lost], largest, rules)
            raised = self.among.raised(jobs) if rests else ()
            found = [_resting(d) if isinstance(d, Hold) and d.run_id in raised else d for d in found]
            if self.among.waited_for:
                starts = {d.run_id for d in found if isinstance(d, Start)}
                mine = [job for job in jobs if job.run_id in starts]
                may = {d.run_id: d for d in self.among.decide(now, nodes, mine, held, largest, rules, wanted)}
                found = [may.get(d.run_id, d) for d in found]
        self.among.tell(now, found, queue, most)
        return found


def _resting(hold: Hold) -> Hold:
    return hold._replace(reason=f"{hold.reason}; {RESTS}")

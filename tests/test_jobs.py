"""Writes that wait, against a plain count: a mailbox is busy from its bound on, however many others wait."""

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from tidings.errors import TooMany
from tidings.store.sqlite.jobs import Job, Jobs

MOST = 4  # that may wait for one mailbox
writes = st.lists(st.sampled_from("abc"), max_size=2, unique=True).map(tuple)
rushes = st.tuples(st.sampled_from("abc"), st.integers(1, MOST + 1)).map(lambda rush: [rush[:1]] * rush[1])
crowds = rushes | st.lists(writes, max_size=3 * MOST)  # none is a commit


@settings(max_examples=500, deadline=None)
@given(st.lists(crowds, max_size=30))
def test_a_mailbox_is_busy_exactly_from_its_bound_on(steps: Sequence[Sequence[tuple[str, ...]]]) -> None:
    """Writes come one by one and in crowds, and commits take some: who is refused is told so by how many wait."""

    async def live() -> None:
        jobs = Jobs(waiting_max=1_000, mailbox_max=MOST, wait_s=60)
        waiting: list[Job] = []
        for crowd in steps:
            for mailboxes in crowd:
                is_busy = any(sum(name in job.mailboxes for job in waiting) == MOST for name in mailboxes)
                try:
                    waiting.append(jobs.put(lambda _: None, mailboxes, lambda *_: None))
                except TooMany:
                    assert is_busy
                else:
                    assert not is_busy
            if not crowd:
                jobs.gather()
                committed = jobs.choose()
                jobs.release(committed)
                waiting = [job for job in waiting if job not in committed]
            assert jobs.waiting == len(waiting)
        jobs.stop()

    asyncio.run(live())

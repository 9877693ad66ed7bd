"""Sending: what goes together is checked by one read and put by one call, at head+1, head+2, ...

The conditional put is the only arbiter: it succeeds if all of its slots are empty, and then it stands behind the head,
since no slot is filled but behind another. Heads are remembered as guesses; who guessed wrong is told by the put, reads
on from there, and tries behind it. A message and its sender's copy are in two partitions: one transaction of both, so
that they are there together or not at all.
"""

import asyncio
import random
from collections.abc import Sequence
from uuid import uuid4

from tidings.cache import Cache
from tidings.errors import StoreUnavailable, TidingsError
from tidings.model import Batch, Change, Head, Message, Posted, Written, sent
from tidings.stamps import Stamps
from tidings.store import RemoteMeter
from tidings.store.dynamodb import items
from tidings.store.dynamodb.announcing import Announcer
from tidings.store.dynamodb.driver import Busy, Driver, Unmet, are_ours, translate
from tidings.store.dynamodb.gate import Gate
from tidings.store.dynamodb.keys import Keys
from tidings.store.dynamodb.lanes import Job, Lanes
from tidings.store.dynamodb.mailboxes import Mailboxes, together
from tidings.store.dynamodb.people import People
from tidings.store.dynamodb.puts import puts_of
from tidings.store.dynamodb.retention import GUESS_MS

_HEADS_MAX = 200_000  # remembered, 0.2 KB each
_FRESH_S = 0.5  # how long what was checked may wait to be put: what others block binds within a second
_PAUSE_S, _PAUSE_MAX_S = 0.001, 0.02  # before another try behind others: a random part, twice as long each time

Outcome = Written[Message] | TidingsError


class Sender:
    """Puts what `lanes` give it; what it needs of the rest of the store, it is given."""

    def __init__(
        self, driver: Driver, table: str, people: People, boxes: Mailboxes, keys: Keys, meter: RemoteMeter, gate: Gate
    ) -> None:
        self.driver = driver
        self.table = table
        self.people = people
        self.boxes = boxes
        self.keys = keys
        self.gate = gate
        self.ends = boxes.ends
        self.heads: Cache[Head] = Cache(_HEADS_MAX)
        self.announcer = Announcer(boxes)
        self.told_up_to = 0  # by timestamp, before this store was served: what an import brought
        self._meter = meter
        self._heads_since = driver.now_ms()
        self._under_way: dict[asyncio.Task[None], list[Job]] = {}
        self.stamps: Stamps
        self.lanes: Lanes

    def begin(self, jobs: list[Job]) -> None:
        """Put them, each as its outcome is told to `lanes`."""
        now_ms = self.driver.now_ms()
        if now_ms - self._heads_since > GUESS_MS:
            self._heads_since = now_ms
            self.heads.clear()
        task = asyncio.get_running_loop().create_task(self._run(jobs))
        self._under_way[task] = jobs
        task.add_done_callback(self._under_way.pop)

    async def _run(self, jobs: list[Job]) -> None:
        together_ = _Together(self, jobs)
        try:
            await together_.run()
        except Exception as error:
            for job in jobs:
                self.lanes.settle(job, None, translate(error))
        finally:
            together_.end()
            self._meter.batch(len(jobs))
            self.lanes.release(jobs)

    async def passed(self, mailbox: str, sender_id: str) -> None:
        """Wait for what this sender has under way to that mailbox: it may have been checked before a change now made.

        So once that is answered, this node takes nothing past it.
        """
        tasks = [
            task
            for task, jobs in self._under_way.items()
            if any(job.mailbox == mailbox and job.draft.sender_id == sender_id for job in jobs)
        ]
        if tasks:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Wait for all that is under way."""
        if self._under_way:
            await asyncio.wait(self._under_way)
        await self.ends.close()
        await self.announcer.close()

    def learn(self, changes: Sequence[Change]) -> None:
        """Move the heads that are remembered on, by what other nodes told."""
        for change in changes:
            if isinstance(change, Posted):
                told = {change.mailbox: change.message.seq}
                if change.sent_seq:
                    told[sent(change.message.sender_id)] = change.sent_seq
                for mailbox, seq in told.items():
                    if self.heads.find(mailbox) is not None:
                        self.remember(mailbox, Head(seq, int(change.message.timestamp)))

    def conflict(self) -> None:
        """A put found somebody else's message in its place."""
        self._meter.conflict()

    def remember(self, mailbox: str, head: Head) -> None:
        """Take it for the next guess, if it is further on."""
        held = self.heads.use(mailbox)
        if held is None or held.seq < head.seq:
            self.heads.put(mailbox, head)


class _Together:
    """Messages on their way into the store by one put."""

    def __init__(self, sender: Sender, jobs: list[Job]) -> None:
        self._sender = sender
        self._left = jobs  # those whose outcome is not known
        self._heads: dict[str, Head] = {}  # of their mailboxes
        self._began = sender.driver.now_ms()
        self._loop = asyncio.get_running_loop()
        self._due = max(job.due for job in jobs)
        self._fresh_until = self._loop.time() + _FRESH_S
        self._stamps: dict[str, int] = {}  # by message id; of those that are not stored, as far as is known
        self._unsure: Sequence[str] = ()  # message ids of a put that may have been done

    async def run(self) -> None:
        """Check, claim the keys, open stamps, put. What is raised is the outcome of all that are left."""
        drafts = [job.draft for job in self._left]
        _, refusals = await together([self._learn_heads(), self._sender.people.refusals(drafts, self._due)])
        await self._each(list(zip(self._left, refusals, strict=True)))
        await self._walk()
        await together([self._stamp(job) for job in self._left])
        tries = 0
        while self._drop_settled():
            taken = await self._try()
            if taken is None:
                return
            tries += 1
            await asyncio.sleep(random.uniform(0, min(_PAUSE_S * 2**tries, _PAUSE_MAX_S)))  # noqa: S311
            await self._give_way(taken)  # read on as late as can be, so that what is read is still so at the put
            await self._check_again()

    def end(self) -> None:
        """Remember the heads. Close the stamps of what is surely not stored; others are left to end by themselves."""
        for mailbox, head in self._heads.items():
            self._sender.remember(mailbox, head)
        for message_id in self._stamps.keys() - set(self._unsure):
            self._sender.stamps.drop(message_id)

    async def _learn_heads(self) -> None:
        """Take what is remembered, read the others. From then on these are ours: keys are looked for behind them."""
        heads = self._heads
        unknown = []
        for mailbox in {mailbox for job in self._left for mailbox in job.mailboxes}:
            head = self._sender.heads.use(mailbox)
            if head is None:
                unknown.append(mailbox)
            else:
                heads[mailbox] = head
        if unknown:
            heads.update(zip(unknown, await self._sender.boxes.heads(unknown, self._due), strict=True))

    async def _each(self, refused: list[tuple[Job, TidingsError | None]]) -> None:
        """Tell who is refused, unless their key was used; claim the keys of the others."""
        await together([self._admit(job, refusal) for job, refusal in refused])
        self._drop_settled()
        earlier = [(job, refusal) for job, refusal in refused if refusal is not None and not job.is_settled]
        if earlier:
            for mailbox in {job.mailbox for job, _ in earlier}:
                await self._read_on(mailbox)
            for job, refusal in earlier:
                self._tell(job, refusal)
            self._drop_settled()

    async def _admit(self, job: Job, refusal: TidingsError | None) -> None:
        """Claim a key. A refused call may be a repeat of one that was taken: then its message is looked for."""
        try:
            if job.key is None:
                base = None
            elif refusal is None:
                base = await self._sender.keys.claim(job.key, self._heads[job.mailbox].seq, self._due)
            else:
                base = await self._sender.keys.find_base(job.key, self._due)
        except TidingsError as error:
            self._tell(job, error)
            return
        if base is not None:
            job.walked = base
        elif refusal is not None:
            self._tell(job, refusal)

    async def _walk(self) -> None:
        """Look for the messages of keys in all slots up to the heads that we know; whose is found is told so.

        No put may be made before: what another node stored for a key is behind its base, and before the head.
        """
        while behind := {job.mailbox for job in self._left if job.key and job.walked != self._heads[job.mailbox].seq}:
            for mailbox in behind:
                await self._read_on(mailbox)
            self._drop_settled()

    async def _read_on(self, mailbox: str) -> None:
        """Learn the head of a mailbox; on the way there, look for the messages of all keys that are left in it."""
        keyed = {job.key.name: job for job in self._left if job.mailbox == mailbox and job.key}
        if not keyed:
            self._heads[mailbox] = await self._sender.boxes.head(mailbox, self._due)
            return
        head = self._heads[mailbox]
        after = min(head.seq, *(job.walked for job in keyed.values()))
        async for item in self._sender.boxes.walk(mailbox, after, self._due):
            head = Head(items.plain(item, "seq"), items.plain(item, "ts"))
            job = keyed.get(item["intent"]["B"]) if "intent" in item else None
            if job is not None and not job.is_settled:
                await self._repeat(job, head.seq)
                if all(one.is_settled for one in self._left):
                    return  # nobody is left who must know how far it goes
        self._heads[mailbox] = head
        for job in keyed.values():
            job.walked = head.seq

    async def _repeat(self, job: Job, seq: int) -> None:
        """Its message is there: give that, and the news of it again, since it may be untold."""
        posted = items.posted(await self._sender.boxes.item(job.mailbox, seq, self._due), job.mailbox)
        news = () if int(posted.message.timestamp) <= self._sender.told_up_to else (posted,)
        self._tell(job, self._sender.gate.doubt() or Written(posted.message, Batch(0, 0, news)))

    async def _stamp(self, job: Job) -> None:
        try:
            self._stamps[job.draft.message_id] = await self._sender.stamps.open(job.draft.message_id)
        except TidingsError as error:
            self._tell(job, error)

    async def _check_again(self) -> None:
        """Decide anew by rights, and take new stamps, once those are so old that it matters."""
        if self._loop.time() < self._fresh_until or not self._drop_settled():
            return
        self._fresh_until = self._loop.time() + _FRESH_S
        refusals = await self._sender.people.refusals([job.draft for job in self._left], self._due)
        for job, refusal in zip(self._left, refusals, strict=True):
            if refusal is not None:
                self._tell(job, refusal)
        self._drop_settled()
        await together([self._stamp(job) for job in self._left])

    async def _try(self) -> set[str] | None:
        """Put what is left behind the heads as they are known; None once it is done.

        Else it is not, and these are the mailboxes where somebody was there first.
        """
        posts = self._number()
        ids = [post.message.message_id for job, post in zip(self._left, posts, strict=True) for _ in job.mailboxes]
        boxes = [mailbox for job in self._left for mailbox in job.mailboxes]
        self._unsure = ids
        try:
            await self._put(posts)
        except Busy:
            self._unsure = ()
            if self._loop.time() >= self._due - _PAUSE_MAX_S:
                raise
            return set()
        except Unmet as unmet:
            if not are_ours(unmet.checks, ids):
                self._unsure = ()
                return {box for box, check in zip(boxes, unmet.checks, strict=True) if not check.is_met}
        self._unsure = ()
        await self._stored(posts)
        return None

    async def _stored(self, posts: Sequence[Posted]) -> None:
        """All of them: let each caller tell its own, in order, and tell those that are awaited no longer."""
        announcer = self._sender.announcer
        for mailbox, head in {box: self._heads[box] for job in self._left for box in job.mailboxes}.items():
            self._sender.ends.succeeded(mailbox, head)
        await announcer.tell_behind({job.mailbox: self._heads[job.mailbox] for job in self._left}, self._due)
        for job, post in zip(self._left[:], posts, strict=True):
            del self._stamps[post.message.message_id]
            head = Head(post.message.seq, int(post.message.timestamp))
            self._heads[job.mailbox] = head
            if job.copies:
                self._heads[job.copies] = Head(post.sent_seq, head.timestamp)
            announcer.hand_over(post)
            doubt = self._sender.gate.doubt()
            if job.is_settled or doubt:
                announcer.tell([post])
            self._tell(job, doubt or _written(post))

    async def _give_way(self, taken: set[str]) -> None:
        if taken:
            self._sender.conflict()
        for mailbox in taken:
            await self._read_on(mailbox)
        self._drop_settled()
        await self._walk()

    def _number(self) -> list[Posted]:
        """Seqs behind the heads; timestamps by the stamps, but later than what is before them in each mailbox."""
        heads = dict(self._heads)
        posts: list[Posted] = []
        for job in self._left:
            draft = job.draft
            before = max(heads[mailbox].timestamp for mailbox in job.mailboxes)
            timestamp = max(self._stamps[draft.message_id], before + 1)
            for mailbox in job.mailboxes:
                heads[mailbox] = Head(heads[mailbox].seq + 1, timestamp)
            seq, sent_seq = heads[job.mailbox].seq, heads[job.copies].seq if job.copies else 0
            message = Message(draft.sender_id, draft.message, draft.recipient_id, str(timestamp), draft.message_id, seq)
            posts.append(Posted(0, job.mailbox, message, sent_seq))
        return posts

    async def _put(self, posts: Sequence[Posted]) -> None:
        requests = puts_of(self._sender.table, self._left, posts, self._heads, self._sender.ends)
        slept_ms = self._sender.driver.now_ms() - self._began
        if slept_ms > GUESS_MS:  # what was behind these heads may be gone again
            raise StoreUnavailable("store_unavailable", "The store was not asked in time.", retry_s=1)
        if len(requests) == 1:
            await self._sender.driver.write("put_item", self._due, patience=self._fresh_until, **requests[0])
            return
        await self._sender.driver.write(
            "transact_write_items",
            self._due,
            patience=self._fresh_until,
            TransactItems=[{"Put": request} for request in requests],
            ClientRequestToken=uuid4().hex,
        )

    def _tell(self, job: Job, outcome: Outcome) -> None:
        if isinstance(outcome, TidingsError):
            self._sender.lanes.settle(job, None, outcome)
        else:
            self._sender.lanes.settle(job, outcome, None)

    def _drop_settled(self) -> bool:
        """Go on without those whose outcome is told, or awaited no longer; whether any is left."""
        self._left = [job for job in self._left if not job.is_settled]
        return bool(self._left)


def _written(posted: Posted) -> Written[Message]:
    return Written(posted.message, Batch(0, 0, (posted,)))

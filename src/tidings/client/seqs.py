"""What must come next in each mailbox of one reader, so that a hole is noticed by whoever reads."""

from collections.abc import Iterable, Mapping

from tidings.client.refusals import Hole
from tidings.model import Message

SENT = "sent"
RECENT_MAX = 4_000  # messages remembered to know a double by: more than a page has
MAILBOXES_MAX = 2_000  # remembered at once; a user is in 250 groups at a time, but may have left others


class Seqs:
    """The last seq that was seen in each mailbox.

    `is_whole`: reading began at the very beginning, so a mailbox's first seq is known as well; else the first one
    seen is taken as it is.
    """

    def __init__(self, *, is_whole: bool) -> None:
        self._is_whole = is_whole
        self._last: dict[str, int] = {}
        self._recent: dict[tuple[str, int], str] = {}

    def take(
        self, messages: Iterable[Message], joined: Mapping[str, int] | None = None, *, may_jump: bool = False
    ) -> list[Message | Hole]:
        """The messages without doubles, and each hole in front of the message behind it.

        `joined` has the head of each group when the reader joined it, unchanged while the messages were asked for:
        what tells a re-join from a hole. `may_jump`: it was said that some messages are gone.
        """
        taken: list[Message | Hole] = []
        for message in messages:
            mailbox = _mailbox(message)
            if self._recent.get((mailbox, message.seq)) == message.message_id:
                continue
            hole = self._find_hole(mailbox, self._last.get(mailbox), message.seq, (joined or {}).get(mailbox))
            if hole is not None and not may_jump:
                taken.append(hole)
            taken.append(message)
            self._remember(mailbox, message)
        return taken

    def holes(self, messages: Iterable[Message], joined: Mapping[str, int] | None = None) -> list[Hole]:
        """The holes that `take` would find, without taking anything."""
        found: list[Hole] = []
        fresh: dict[str, Message] = {}  # the last of each mailbox
        given: dict[tuple[str, int], str] = {}
        for message in messages:
            mailbox = _mailbox(message)
            place = mailbox, message.seq
            if message.message_id in (self._recent.get(place), given.get(place)):
                continue
            last = fresh[mailbox].seq if mailbox in fresh else self._last.get(mailbox)
            hole = self._find_hole(mailbox, last, message.seq, (joined or {}).get(mailbox))
            if hole is not None:
                found.append(hole)
            fresh[mailbox] = message
            given[place] = message.message_id
        return found

    def _find_hole(self, mailbox: str, last: int | None, seq: int, joined: int | None) -> Hole | None:
        if last is None:
            if not self._is_whole:
                return None
            last = 0
        if seq == last + 1:
            return None
        after = last if joined is None else max(last, joined)  # of what was said while away, nothing is given
        return None if seq == after + 1 else Hole(mailbox, after + 1, seq)

    def _remember(self, mailbox: str, message: Message) -> None:
        self._last.pop(mailbox, None)
        self._last[mailbox] = message.seq  # so the mailbox heard of longest ago stands first
        self._recent[mailbox, message.seq] = message.message_id
        while len(self._recent) > RECENT_MAX:
            del self._recent[next(iter(self._recent))]
        while len(self._last) > MAILBOXES_MAX:
            del self._last[next(iter(self._last))]
            self._is_whole = False  # what comes next in the forgotten one is not known


def _mailbox(message: Message) -> str:
    return SENT if message.sent else message.recipient_id

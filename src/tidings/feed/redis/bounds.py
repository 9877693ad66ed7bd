"""How long the feed on Redis waits, and how much it holds."""

import msgspec


class Bounds(msgspec.Struct, frozen=True):
    """Each with its reason; seconds unless the name says otherwise."""

    beat_s: float = 0.2  # of silence at the most: five tries before what is held is doubted
    fresh_s: float = 1.0  # old proof is none: what others acknowledged before that is seen
    turn_s: float = 1.0  # for a server to answer; one that needs longer is as good as away
    publish_s: float = 2.0  # a turn, a lost link and another turn; then the caller is told 503
    patience_s: float = 0.5  # without a link before nobody waits for one any more
    start_s: float = 5.0  # for the first link; without one a node serves from the store
    backoff_s: float = 1.0  # between two tries for a link, at the most
    floor_s: float = 5.0  # for the store to give or raise the floor
    read_s: float = 1.0  # asked of the server at a time; beats come sooner
    expire_ms: int = 10_000  # of an open stamp: longer than any write that is not lost
    ahead_ms: int = 10_000  # that the floor is raised above the clock
    keep: int = 50_000  # entries of the stream: ten minutes of 80 a second; 50 MB of short messages
    held_max: int = 10_000  # batches not taken yet
    held_bytes_max: int = 32 << 20  # likewise
    turn_max: int = 256  # batches in one turn, some 5 ms of the server's time
    turn_bytes_max: int = 1 << 20  # likewise; one batch may be larger
    opens_max: int = 10_000  # stamps asked for at a time


WIDE = Bounds()

"""A bounded mapping whose least recently used entries leave, made so that hundreds of thousands cause no pause.

One dictionary stops the process for 18 ms when 600,000 entries make it grow (measured), and the collector walks an
OrderedDict from end to end. So there are many small dictionaries, each in the order of use; and the collector does not
look into a dictionary whose keys are text and whose values it need not know (msgspec's `gc=False`, text, numbers).
"""

from typing import Generic, TypeVar

V = TypeVar("V")

_SHARD = 500  # entries in each dictionary, about: growing or searching one takes microseconds
_HIGH = 40  # a dictionary goes by the low bits of a hash; which one it is, by these


class Cache(Generic[V]):
    """At most `most` values by text; when one too many is put, one that was not used for long leaves.

    It is the least recently used of all while there is one dictionary (below 1,000 entries), later of its dictionary.
    """

    def __init__(self, most: int) -> None:
        shards = 1 << max(0, (most // _SHARD).bit_length() - 1)
        self._most = most
        self._shards: list[dict[str, V]] = [{} for _ in range(shards)]
        self._mask = shards - 1
        self._held = 0

    def __len__(self) -> int:
        return self._held

    def find(self, key: str) -> V | None:
        """The value, not counted as used."""
        return self._shards[hash(key) >> _HIGH & self._mask].get(key)

    def use(self, key: str) -> V | None:
        """The value; it is now the most recently used."""
        shard = self._shards[hash(key) >> _HIGH & self._mask]
        value = shard.pop(key, None)
        if value is not None:
            shard[key] = value
        return value

    def replace(self, key: str, value: V) -> None:
        """Put another value in the place of one that is held."""
        self._shards[hash(key) >> _HIGH & self._mask][key] = value

    def put(self, key: str, value: V) -> None:
        """Hold a value as the most recently used."""
        shard = self._shards[hash(key) >> _HIGH & self._mask]
        if shard.pop(key, None) is None:
            self._held += 1
        shard[key] = value
        while self._held > self._most:
            crowded = shard if len(shard) > 1 else max(self._shards, key=len)
            del crowded[next(iter(crowded))]
            self._held -= 1

    def drop(self, key: str) -> None:
        """Let go of a value, if it is held."""
        if self._shards[hash(key) >> _HIGH & self._mask].pop(key, None) is not None:
            self._held -= 1

    def clear(self) -> None:
        """Let go of everything."""
        self._shards = [{} for _ in self._shards]
        self._held = 0

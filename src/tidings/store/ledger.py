"""What a doctor writes down: faults by kind, with the first places of each."""

from tidings.store.upkeep import Finding

_SHOWN = 5  # examples of a fault


class Ledger:
    """What was found so far."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, str, int, list[str]]] = {}

    def add(self, kind: str, what: str, advice: str, example: str, count: int = 1) -> None:
        """One more place with a fault of a kind."""
        _, _, before, examples = self._found.get(kind, ("", "", 0, []))
        if len(examples) < _SHOWN:
            examples.append(example)
        self._found[kind] = (what, advice, before + count, examples)

    def take(self, other: "Ledger") -> None:
        """Take over what another has, of kinds that this one has not."""
        self._found |= other._found

    def findings(self) -> tuple[Finding, ...]:
        """All of it."""
        return tuple(
            Finding(kind, what, count, tuple(examples), advice)
            for kind, (what, advice, count, examples) in self._found.items()
        )

"""How a start is refused: in one line, with exit code 1."""

from pathlib import Path

from tests.server import ServerProcess, StartFailed


class ServedAfterAll(Exception):
    """The server started; it was ended again."""


def refusal(data: Path, *flags: str) -> str:
    """The one line, naming the file, with which a start on this data is refused. Raises ServedAfterAll if it is not."""
    try:
        with ServerProcess.start(data, *flags):
            pass
    except StartFailed as failure:
        lines = failure.stderr.splitlines()
        well = failure.code == 1 and len(lines) == 1 and "tidings.db" in lines[0] and "Traceback" not in lines[0]
        assert well, failure  # noqa: PT017  # what is asserted is how it failed, whenever it did
        return lines[0]
    raise ServedAfterAll

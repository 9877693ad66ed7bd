"""What a bench says while it runs: a live line on a terminal, a line a step anywhere else."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Talk:
    """Tells of scenes and their steps; a context manager, since a live line must be cleared in the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Progress | None = None
        if console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn())
            self._live = Progress(
                *columns, TextColumn("{task.fields[last]}"), TimeElapsedColumn(), console=console, transient=True
            )
        self._task: TaskID | None = None
        self._done = 0
        self._steps = 0

    def scene(self, name: str, title: str) -> None:
        """A scene begins; how many steps it takes is not known yet."""
        self._done, self._steps = 0, 0
        if self._live is None:
            self._print(f"{name}: {title}")
            return
        if self._task is not None:
            self._live.remove_task(self._task)
        self._task = self._live.add_task(name, total=None, last=title)

    def expect(self, steps: int) -> None:
        """So many more steps."""
        self._steps += steps
        if self._live is not None and self._task is not None:
            self._live.update(self._task, total=self._steps)

    def step(self, text: str) -> None:
        """A step is done; the text tells what it gave."""
        self._done += 1
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=self._done, last=" ".join(text.split()))
        else:
            self._print(f"  {self._done}/{self._steps}  {text}")

    def say(self, text: str) -> None:
        """Something worth a line of its own, that stays."""
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            self._print(f"  {text}")

    def __enter__(self) -> "Talk":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def _print(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)

"""The processes beside the nodes of a cluster, as the bench has them: each answers one question after the other."""

from bench import calls, crowd, insider
from bench.processes import Answering, Failed


class Calls(Answering):
    """Calls to the tables, without a node."""

    module = "bench.calls"

    def make(self, ask: calls.Ask) -> calls.Told:
        """Make them. Raises Failed."""
        told = self.ask(ask, calls.Told)
        if told.wrong:
            raise Failed(told.wrong)
        return told


class Insider(Answering):
    """A node without HTTP."""

    module = "bench.insider"

    def play(self, act: insider.Act) -> insider.Done:
        """Play one act. Raises Failed."""
        done = self.ask(act, insider.Done)
        if done.wrong:
            raise Failed(done.wrong)
        return done


class Crowd(Answering):
    """A node's directory, full."""

    module = "bench.crowd"

    def answer(self, ask: crowd.Fill | crowd.Look) -> crowd.Told:
        """Do it, and say how it is. Raises Failed."""
        told = self.ask(ask, crowd.Told)
        if told.wrong:
            raise Failed(told.wrong)
        return told

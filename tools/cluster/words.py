"""What is printed: where everything is, and what to try."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.cluster.keeping import Part

READY = """\
{count} nodes behind one address: {url}

{parts}

  store  {store}
  feed   {feed}
  logs   {logs}/*.log

In another shell, ann writes to herself through the balancer, and each node has it:

  ann=$(curl -s {url}/v1/users/create -d '{{"username":"ann"}}' | cut -d'"' -f4)
  curl -s "{url}/v1/messages/send?type=private" \\
    -d '{{"senderId":"'$ann'","receiverId":"'$ann'","message":"Hi"}}'; echo
  for port in {ports}; do curl -s http://127.0.0.1:$port/v1/messages/$ann; echo; done

The command tidings, and a chat: bob in one shell, and another for whoever he talks with:

  . {activate}; export TIDINGS_URL={url}
  bob=$(tidings user create bob)
  tidings send $ann $bob "Any tidings?"
  tidings chat $bob --with $ann

Each call to click through: {url}/docs
End a node, and see that nobody misses anything: kill -9 {victim}
Ctrl-C ends all of it.

"""


def ready(url: str, parts: Sequence[Part], nodes: Mapping[str, int], places: tuple[str, str], logs: Path) -> str:
    """What there is, once it is ready; `nodes` are their names and ports, `places` those of store and feed."""
    return READY.format(
        count=len(nodes),
        url=url,
        parts="\n".join(_row(part, nodes.get(part.plan.name)) for part in parts),
        store=places[0],
        feed=places[1],
        logs=_shown(logs),
        ports=" ".join(map(str, nodes.values())),
        victim=next(part.pid for part in parts if part.plan.name in nodes),
        activate=_shown(Path(sys.prefix) / "bin" / "activate"),
    )


def _row(part: Part, port: int | None) -> str:
    return f"  {part.plan.name:<8}  pid {part.pid:<8} {f'http://127.0.0.1:{port}' if port else ''}".rstrip()


def _shown(path: Path) -> str:
    """A path, as short as it may be from here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)

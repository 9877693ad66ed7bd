"""docs/cli.md and docs/client.md list what is there, whole: commands, exit codes, methods, bounds, errors."""

import inspect
import re
from dataclasses import fields

import tidings
from tests.offered import offered
from tests.pages import ROOT, prose, rows
from tidings import Client, Retries
from tidings.cli import exits

CLI, CLIENT = ROOT / "docs" / "cli.md", ROOT / "docs" / "client.md"


def test_every_command_is_listed() -> None:
    """The table has each command that help shows, with its arguments in their order, and options that it has."""
    commands = {command.name: command for command in offered()}
    listed = [row[0].strip("`").removeprefix("tidings ") for row in rows(CLI, "## The commands")]
    names = {"", "user", "group", "store"}
    for line in listed:
        words = line.split()
        name = " ".join(word for word in words if word.islower() and not word.startswith("-"))
        arguments = re.findall(r"(?<!--as )(?:\[[A-Z]+\]|\b[A-Z]+\b)", line)
        assert tuple(arguments) == commands[name].arguments, line
        assert {word for word in words if word.startswith("--")} <= {*commands[name].flags}, line
        names.add(name)
    assert names == {*commands}


def test_every_exit_code_is_listed() -> None:
    """The table has the codes that commands end with, and help has the same."""
    listed = [int(row[0]) for row in rows(CLI, "## Exit codes")]
    assert listed == [0, exits.FAILED, exits.WRONG_USE, exits.UNREACHABLE, exits.INTERRUPTED]
    assert [int(code) for code in re.findall(r"\d+", exits.CODES)] == listed


def test_every_method_is_listed() -> None:
    """The table has each method of the client, with the arguments that must be given, and no other."""
    methods = {}
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        given = [param.name for param in inspect.signature(method).parameters.values() if param.default is param.empty]
        methods[name] = f"{name}({', '.join(given[1:])})"
    listed = {row[0].strip("`") for row in rows(CLIENT, "## Calls")}
    assert listed == {text for name, text in methods.items() if not name.startswith("_")}


def test_every_bound_and_every_name_is_listed() -> None:
    """The bounds have their defaults, and each name that `tidings` promises is explained."""
    text = prose(CLIENT)
    for bound in fields(Retries):
        assert re.search(rf"^\| `{bound.name}` \| {bound.default:g} \|", text, re.MULTILINE), bound.name
    for name in tidings.__all__:
        assert re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", text), name

"""mkdocs hook: writes the reference of all commands into docs/command-line.md, from the commands themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer.main

from penstock.cli.app import app

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

MARK = re.compile(r"^The site has the reference.*^<!-- commands -->$", re.MULTILINE | re.DOTALL)


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """All commands under one, each with its full name; groups themselves and hidden commands are left out."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for word, below in command.commands.items():
        if not below.hidden:
            yield from commands(below, f"{name} {word}")


def cell(text: str) -> str:
    """A text as it may stand in a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def placeholder(parameter: Any) -> str:
    """What stands for a parameter's value, such as DIR."""
    return str(parameter.metavar or (parameter.name or "").upper())


def described(name: str, command: Any) -> Iterator[str]:
    """The section of one command: what it does, how it is called, its arguments and options."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    words = [name, *(placeholder(p) if p.required else f"[{placeholder(p)}]" for p in arguments)]
    words += [f"{p.opts[0]} {placeholder(p)}" for p in options if p.required]
    yield f"### {name}\n"
    yield f"{command.help}\n"
    yield f"```\n{' '.join(words)}{' [OPTIONS]' if len(words) < 1 + len(command.params) else ''}\n```\n"
    if command.params:
        yield "| argument or option | meaning |"
        yield "|---|---|"
    for parameter in arguments:
        yield f"| `{cell(placeholder(parameter))}` | {cell(parameter.help or '')} |"
    for parameter in options:
        shown = ", ".join(parameter.opts) + ("" if parameter.is_flag else f" {placeholder(parameter)}")
        default = parameter.default
        has_default = not parameter.is_flag and isinstance(default, str | int | float)
        yield f"| `{cell(shown)}` | {cell(parameter.help or '')}{f' Default: `{default}`.' if has_default else ''} |"
    yield ""


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace the mark in docs/command-line.md by a section for each command."""
    del config, files
    if page.file.src_uri != "command-line.md":
        return markdown
    sections = (
        line for name, one in commands(typer.main.get_command(app), "penstock") for line in described(name, one)
    )
    text = "\n".join(sections)
    return MARK.sub(lambda _: text, markdown)

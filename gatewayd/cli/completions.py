"""Completions for bash, zsh and fish, written from the commands.

They are tables in the shell's own words. A TAB starts no Python: on a busy gateway that would take a second. They
complete commands, options, the values of an option that has a choice, and files. Each script walks the words before
the cursor to the command, and looks into its tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import click

FILES: Final = "@files"
"""Of a parameter that is a path, in the place of its values."""
PROGRAM: Final = "gatewayd"


@dataclass(frozen=True, slots=True)
class Completable:
    """A command by its whole name. `options`: of each value that follows one, the words, or FILES, or nothing that
    can be guessed; a switch is in `switches`."""

    name: str
    commands: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, str, str], ...]
    switches: tuple[tuple[str, str], ...]
    arguments: str

    @property
    def words(self) -> list[tuple[str, str]]:
        """Options and switches, each with its line."""
        return [*((word, line) for word, line, _ in self.options), *self.switches]


def root_context(main: click.Command) -> click.Context:
    return click.Context(main, info_name=PROGRAM, **main.context_settings)


def walk(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """`command` and all below it, in the order of the help."""
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from walk(inner, click.Context(inner, info_name=name, parent=context))


def completables(main: click.Command) -> list[Completable]:
    return [_completable(*each) for each in walk(main, root_context(main))]


def _completable(command: click.Command, context: click.Context) -> Completable:
    commands = []
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            commands.append((name, inner.get_short_help_str(80) if inner else ""))
    options, switches, arguments = [], [], ""
    for each in command.get_params(context):
        if not isinstance(each, click.Option):
            arguments = arguments or _values(each)
            continue
        line = (each.help or "").partition("  [")[0]
        for word in (*each.opts, *each.secondary_opts):
            if is_switch(each):
                switches.append((word, line))
            else:
                options.append((word, line, _values(each)))
    return Completable(context.command_path, tuple(commands), tuple(options), tuple(switches), arguments)


def is_switch(option: click.Option) -> bool:
    """Whether no value must follow: `--json`, and `--confirm`, which has a usual value."""
    return bool(option.is_flag or option.count or isinstance(option.flag_value, str))


def _values(parameter: click.Parameter) -> str:
    if isinstance(parameter.type, click.Choice):
        return " ".join(map(str, parameter.type.choices))
    is_file = isinstance(parameter.type, click.Path | click.File) or parameter.metavar == "PATH"
    return FILES if is_file else ""


def _quoted(text: str) -> str:
    """For all three shells, in single quotes."""
    return "'" + text.replace("'", "'\\''") + "'"


def _cases(rows: Iterable[tuple[str, str]], indent: str) -> str:
    """Arms of a `case` of bash and zsh, which agree in this; one for all that do the same."""
    arms: dict[str, list[str]] = {}
    for pattern, deed in rows:
        arms.setdefault(deed, []).append(_quoted(pattern))
    return "".join(f"{indent}{'|'.join(patterns)}) {deed} ;;\n" for deed, patterns in arms.items())


# -- bash ------------------------------------------------------------------------------------------------------

_BASH = """\
# bash completion of gatewayd, made from its commands.
_gatewayd()
{{
    local here=gatewayd word words=''
    local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
    # "=" is a word of its own: --mode=limit is three.
    if [[ $current == = ]]; then
        current=''
    elif [[ $before == = ]]; then
        before=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$here $word" in
            {paths}) here="$here $word" ;;
        esac
    done
    COMPREPLY=()
    case "$here $before" in
{values}    esac
    if [[ -z $words ]]; then
        case "$here" in
{words}        esac
    fi
    if [[ $words == {files} ]]; then
        compopt -o default 2>/dev/null
    else
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    fi
}}
complete -F _gatewayd gatewayd
"""


def bash(commands: list[Completable]) -> str:
    """Options stand in the list only after a `-`; an empty answer leaves the word to the operator."""
    values = ((f"{each.name} {word}", f"words={_quoted(found)}" if found else "return") for each in commands
              for word, _, found in each.options)  # fmt: skip
    words = ((each.name, _bash_words(each)) for each in commands)
    return _BASH.format(
        paths=_paths(commands), values=_cases(values, " " * 8), words=_cases(words, " " * 12), files=FILES
    )


def _bash_words(each: Completable) -> str:
    """Options where a dash stands or nothing else can."""
    options = " ".join(word for word, _ in each.words)
    others = each.arguments or " ".join(word for word, _ in each.commands)
    if not others:
        return f"words={_quoted(options)}"
    return f"words={_quoted(others)}; [[ $current == -* ]] && words={_quoted(options)}"


def _paths(commands: list[Completable]) -> str:
    """Every command below the program, as the pattern of one `case`."""
    return "|".join(_quoted(each.name) for each in commands[1:])


# -- zsh -------------------------------------------------------------------------------------------------------

_ZSH = """\
#compdef gatewayd
# zsh completion of gatewayd, made from its commands.
local here=gatewayd word
local -a choices
for word in ${{words[2,CURRENT-1]}}; do
    case "$here $word" in
        {paths}) here="$here $word" ;;
    esac
done
case "$here ${{words[CURRENT-1]}}" in
{values}esac
case "$here" in
{words}esac
_describe gatewayd choices
"""


def zsh(commands: list[Completable]) -> str:
    values = ((f"{each.name} {word}", _zsh_value(found)) for each in commands for word, _, found in each.options)
    words = ((each.name, _zsh_words(each)) for each in commands)
    return _ZSH.format(paths=_paths(commands), values=_cases(values, " " * 4), words=_cases(words, " " * 4))


def _zsh_value(found: str) -> str:
    return "_files; return" if found == FILES else f"compadd -- {found}; return" if found else "return"


def _zsh_words(each: Completable) -> str:
    """As bash has them, each with its line."""
    options = f"choices=({_zsh_lines(each.words)})"
    if each.arguments:
        others = _zsh_value(each.arguments)
    elif each.commands:
        others = f"choices=({_zsh_lines(list(each.commands))})"
    else:
        return options
    return f"if [[ $PREFIX == -* ]]; then {options}; else {others}; fi"


def _zsh_lines(words: list[tuple[str, str]]) -> str:
    return " ".join(_quoted(word + (":" + line.replace(":", r"\:") if line else "")) for word, line in words)


# -- fish ------------------------------------------------------------------------------------------------------

_FISH = """\
# fish completion of gatewayd, made from its commands.
function __gatewayd_here
    set -l here gatewayd
    for word in (commandline -opc)[2..-1]
        if contains -- "$here $word" {paths}
            set here "$here $word"
        end
    end
    test "$here" = "$argv"
end
complete -c gatewayd -f
"""


def fish(commands: list[Completable]) -> str:
    paths = " ".join(_quoted(each.name) for each in commands[1:])
    return _FISH.format(paths=paths) + "".join(f"{line}\n" for each in commands for line in _fish_lines(each))


def _fish_lines(each: Completable) -> Iterator[str]:
    start = f'complete -c gatewayd -n "__gatewayd_here {each.name}"'
    for word, line in each.commands:
        yield f"{start} -a {word} -d {_quoted(line)}"
    if each.arguments:
        yield f"{start} -F" if each.arguments == FILES else f"{start} -a {_quoted(each.arguments)}"
    for word, line in each.switches:
        yield f"{start} {_fish_option(word)} -d {_quoted(line)}"
    for word, line, found in each.options:
        values = "-r -F" if found == FILES else f"-x -a {_quoted(found)}" if found else "-x"
        yield f"{start} {_fish_option(word)} {values} -d {_quoted(line)}"


def _fish_option(word: str) -> str:
    return f"-l {word[2:]}" if word.startswith("--") else f"-s {word[1:]}"

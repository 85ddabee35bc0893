"""Faults as a command says them: without a person's number from its words, and without control characters.

What a command writes to stderr ends in a mail of cron, in the journal, in the log of a terminal. So a number or an
e-mail address that was typed in a wrong place is not repeated there. Names of files are: the operator gave them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

from gatewayd.cli.output import printable
from gatewayd.model.msisdn import digits_in, may_name_person

NOT_REPEATED: Final = "(not repeated)"


def without_persons(text: str, arguments: Sequence[str]) -> str:
    """`text` of a fault. `arguments`: the words of the command line."""
    for word in sorted(set(_persons_in(arguments)), key=len, reverse=True):
        text = text.replace(word, NOT_REPEATED)
    return "\n".join(map(printable, text.split("\n")))


def _persons_in(arguments: Sequence[str]) -> Iterator[str]:
    """Words and values of options that may be a person's, and their digits as a number that was read has them."""
    for argument in arguments:
        for word in (argument, argument.partition("=")[2], argument.lstrip("-")):
            if word and may_name_person(word) and not _is_file(word):
                yield from (each for each in (word, digits_in(word).lstrip("0")) if each)


def _is_file(word: str) -> bool:
    return os.sep in word or os.path.lexists(word)

"""What commands say of files that cannot be used."""

import re

from support.commands import uncseg


def exactly(count, found):
    """Return what was found as a list of this length; otherwise the test shows what there is."""
    found = list(found)
    assert len(found) == count, f"{len(found)} and not {count}:\n" + "\n".join(map(str, found))
    return found


def assert_accepted(folder, count=3):
    """Check that all cases are found and none has a problem."""
    output = uncseg("check", folder)
    assert re.search(rf"\b{count} cases?\b", output), output


def assert_refused(folder, *words):
    """Check that one line of the problems holds all the words, patterns without regard to case."""
    output = uncseg("check", folder, code=1)
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert any(all(re.search(word, line, re.I) for word in words) for line in lines), output


def assert_says(output, name, kind):
    """Check that a problem of a file tells the cause, and nothing that misleads.

    Args:
        output: of a command in a terminal in which every problem is one line.
        name: of the file.
        kind: what is odd about it, a :class:`~support.refused_files.Kind`.
    """
    # the first cell says where, by a path that may hold any words
    said = [" ".join(line.partition("│ ")[2].partition("│")[2].split()) for line in output.splitlines() if name in line]
    assert said, f"{name} is not named:\n{output}"
    for word in kind.words:
        assert any(re.search(word, text, re.I) for text in said), f"{word} is not said: {said}"
    if kind.never:
        assert not any(re.search(kind.never, text, re.I) for text in said), f"{kind.never} is said: {said}"

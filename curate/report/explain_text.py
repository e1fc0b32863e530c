"""An explanation as lines for a terminal."""

from __future__ import annotations

from curate.report.explain import Explanation, Neighbour
from curate.report.words import plural, tidy, value

_SIGNS = {"passed": "✓", "dropped": "✗", "not reached": "·"}


def as_text(found: Explanation) -> str:
    """The explanation of one sample; foreign text has lost its control characters."""
    verdict = "kept" if found.keep else f"dropped by {found.filter}: {tidy(found.reason, None)}"
    lines = [
        f"uid      {tidy(found.uid, None)}",
        f"sample   {tidy(found.key, None)} in {tidy(found.shard, None)}",
        f"caption  {tidy(found.caption, 500) if found.caption is not None else 'not readable'}",
        f"verdict  {verdict}",
        "",
    ]
    width = max((len(answer.filter) for answer in found.filters), default=0)
    for answer in found.filters:
        asked = ", ".join(f"{name} {value(given)}" for name, given in answer.parameters.items() if given is not None)
        read = ", ".join(f"{name} {tidy(value(measured), 24)}" for name, measured in answer.values.items())
        line = f"{_SIGNS[answer.answer]} {answer.filter:<{width}}  {answer.answer:<11}"
        if answer.answer != "not reached":
            line += f"  {read}" if read else ""
            line += f"  (asks {asked})" if asked else ""
        lines.append(line.rstrip())
    if not found.values:
        lines += ["", "Its measured values are not shown: the pool's feature cache no longer has them."]
    if found.duplicate_of:
        lines += ["", "duplicate of", _line(found.duplicate_of)]
    if found.duplicate_of_earlier:
        lines += ["", "duplicate of", f"  {tidy(found.duplicate_of_earlier, None)}  of an earlier pool, curated before"]
    if found.duplicates_in_all:
        lines += ["", f"{plural(found.duplicates_in_all, 'sample')} dropped as duplicates of it"]
        lines += [_line(neighbour) for neighbour in found.duplicates]
        if (more := found.duplicates_in_all - len(found.duplicates)) > 0:
            lines.append(f"  and {more} more")
    return "\n".join(lines)


def _line(neighbour: Neighbour) -> str:
    verdict = "kept" if neighbour.keep else f"dropped by {neighbour.filter}: {tidy(neighbour.reason)}"
    caption = tidy(neighbour.caption, 100) if neighbour.caption is not None else "caption not readable"
    return f"  {tidy(neighbour.uid, None)}  {tidy(neighbour.key)} in {neighbour.shard}\n    {verdict}\n    {caption}"

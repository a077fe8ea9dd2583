"""How much a part may tell: a store that is all wrong must not fill the messages and reports of its audit."""

from __future__ import annotations

from collections import Counter

import msgspec

from tradepool.audit.parts.part import Answer, Part
from tradepool.audit.report import by_severity

__all__ = ["bounded"]

FINDINGS_MAX = 5_000
"""Findings of one part."""
UNDECIDED_MAX = 1_000


def bounded(part: Part, answer: Answer) -> Answer:
    """The worst findings of the answer, in order; how many more there are of each rule is `undecided`."""
    if len(answer.findings) <= FINDINGS_MAX and len(answer.undecided) <= UNDECIDED_MAX:
        return answer
    found = by_severity(sorted(set(answer.findings)))
    more = Counter(finding.rule for finding in found[FINDINGS_MAX:])
    told = [f"{count} more findings {rule!r} of part {part.name}" for rule, count in sorted(more.items())]
    texts = list(dict.fromkeys(answer.undecided))
    if len(texts) > UNDECIDED_MAX:
        told.append(f"{len(texts) - UNDECIDED_MAX} more of part {part.name}")
    return msgspec.structs.replace(
        answer, findings=tuple(found[:FINDINGS_MAX]), undecided=(*told, *texts[:UNDECIDED_MAX])
    )

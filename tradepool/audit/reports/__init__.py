"""What becomes of an audit's report: it is kept, shown as a page, and told to whoever is on call.

`kept` is its form, `folder` has the files, `news` says which critical findings are new, `paging` tells of
them, `course` and `plots` draw how it went, `page` writes the page; `keeping` puts all of that together.
"""

from __future__ import annotations

from tradepool.audit.reports.keeping import Reports

__all__ = ["Reports"]

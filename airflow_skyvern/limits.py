"""
What Skyvern refuses as too many, too long or too far back; read in its source, and tried on a server (1.0.56).

The contract suite asks a real server at each edge. Where versions differ, this is the newest one's.
"""

from __future__ import annotations

PAGE_SIZE = 100
"""Rows per page of a list; the most that ``/v1/runs`` allows."""

LAST_RUNS_PAGE = 100
"""``/v1/runs`` refuses pages beyond this one: 10,000 runs."""

LAST_SEARCH_PAGE = 10
"""The same with a search term or with chosen workflows: 1,000 runs. A workflow's own list has no such end."""

MOST_WORKFLOWS = 50
"""Workflows that ``/v1/runs`` filters by at once, since Skyvern 1.0.48."""

MOST_TAGS = 20
"""Tags that a list filters by at once."""

MOST_RUNS_OF_TAGS = 200
"""Runs whose tags ``/v1/run-tags`` gives at once."""

MOST_CANCELED = 100
"""Runs that one bulk cancel takes."""

SHORTEST_SEARCH = 3
"""Characters of a search term of ``/v1/runs``."""

MOST_METADATA = 20
LONGEST_METADATA_KEY = 64
LONGEST_METADATA_VALUE = 256
"""Entries of ``run_metadata`` and their lengths, in characters."""

LONGEST_ADDRESS = 2083
"""Characters of a ``webhook_url`` or a ``totp_url``."""

MOST_FILES = 50
"""Files of one run."""

LONGEST_RUN_MINUTES = 480
"""The most that ``max_elapsed_time_minutes`` may be; 240 up to Skyvern 1.0.48 or later."""

MOST_RETENTION_DAYS = 365
"""Days for which an uploaded file may be kept."""

LARGEST_UPLOAD = 30 * 2**20
"""Bytes of an uploaded file; a self-hosted server may allow more."""

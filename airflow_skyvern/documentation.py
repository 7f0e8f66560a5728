"""Where the documentation explains a message: its address, once the package has one."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, metadata

PACKAGE = "airflow-provider-skyvern"
LABEL = "Documentation"


def documentation(page: str, heading: str) -> str:
    """
    Return the address of a section, as the package's metadata has it; without one, the names of section and page.

    :param page: The page's file without its ending: ``schedules``.
    :param heading: The heading of the section: ``Clock changes``.
    """
    address = _address()
    if address is None:
        return f'"{heading}" on the page "{page}" of the documentation'
    anchor = re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())
    return f"{address.rstrip('/')}/{page}.html#{anchor}"


def _address() -> str | None:
    try:
        urls = metadata(PACKAGE).get_all("Project-URL") or []
    except PackageNotFoundError:
        return None
    return dict(url.split(", ", 1) for url in urls).get(LABEL)

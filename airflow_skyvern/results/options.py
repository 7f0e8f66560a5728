"""A task's arguments about the files of its run, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernFilesMissing
from airflow_skyvern.results.names import PLACEHOLDERS, unknown_placeholders
from airflow_skyvern.results.store_kinds import Address
from airflow_skyvern.task.arguments import is_dynamic

ExpectedFiles = int | tuple[int, int | None] | str | Sequence[str | int | None] | None
"""How many files, ``(least, most)`` or ``[least, most]``, or name patterns that each must match a file."""

IfExists = Literal["fail", "skip_same", "replace"]
"""How to treat an existing file, or partition, with other content."""

LONGEST_LIST = 10
"""How many names a message lists."""


@dataclass(frozen=True)
class FileOptions:
    """
    The arguments about files; :class:`~airflow_skyvern.operators.SkyvernRunWorkflowOperator` documents them.

    Several of them may be templates until the task runs.
    """

    files_to: str | None = None
    files_conn_id: str | None = None
    file_name: str | None = None
    overwrite: bool = False
    recording: bool = False
    screenshots: bool = False
    expect_files: ExpectedFiles = None
    if_exists: IfExists | None = None
    manifest_to: str | None = None

    @property
    def replaces(self) -> bool:
        """Whether a file may replace another one with the same name."""
        return self.overwrite or self.if_exists == "replace"

    @property
    def replaces_partition(self) -> bool:
        """Whether files listed in a manifest may be replaced; by default a task with only an output replaces it."""
        return self.replaces or (self.if_exists is None and self.files_to is None)

    @property
    def wanted(self) -> bool:
        """Whether the task uses the run's files at all."""
        return self.files_to is not None or self.expect_files is not None

    @property
    def evidence(self) -> bool:
        """Whether recording or screenshots are stored, also when the run failed."""
        return self.files_to is not None and (self.recording or self.screenshots)

    def check(self, task_id: str, output_to: Any = None) -> None:
        """
        Check what is known when the DAG is parsed, before templates are rendered.

        :param output_to: The task's other place.
        :raises SkyvernConfigError: names the task, what is wrong, and what would be right.
        """
        for complaint in (
            _place(self.files_to),
            _needs_place(self),
            _name(self.file_name),
            _expected(self),
            _if_exists(self),
            _manifest(self, output_to),
        ):
            if complaint:
                raise SkyvernConfigError(f"Task {task_id!r}: {complaint}")

    def check_destination(self, task_id: str) -> None:
        """
        Check the rendered value of ``files_to``.

        :raises SkyvernConfigError: files cannot be stored there.
        """
        if complaint := _place(self.files_to) or _manifest_address(self.manifest_to):
            raise SkyvernConfigError(f"Task {task_id!r}: {complaint}")

    def check_files(self, run_id: str, names: Sequence[str], link: str | None) -> None:
        """
        Compare a run's downloads with the expected files.

        :raises SkyvernFilesMissing: names the expected and the actual files.
        """
        if self.expect_files is None or (missing := _missing(self.expect_files, names)) is None:
            return
        there = ", ".join(names[:LONGEST_LIST]) + (", …" if len(names) > LONGEST_LIST else "")
        listed = f" ({there})" if there else ""
        raise SkyvernFilesMissing(
            f"Skyvern run {run_id} completed, but {missing}; it downloaded {len(names)}{listed}."
            f"{f' See {link}' if link else ''}"
        )


def _place(files_to: Any) -> str | None:
    if files_to is None or is_dynamic(files_to):
        return None
    if not isinstance(files_to, str) or not files_to:
        return f"files_to must be a path or an address such as s3://bucket/folder, not {files_to!r}."
    if not files_to.startswith("/") and "://" not in files_to:
        return f"files_to must be an absolute path or an address such as s3://bucket/folder, not {files_to!r}."
    if files_to.startswith(("http://", "https://")):
        return "files_to cannot be an http address; use an object store or a path."
    try:
        Address.of(files_to)
    except SkyvernConfigError as error:
        return f"files_to: {error}"
    return None


def _needs_place(options: FileOptions) -> str | None:
    if options.files_to is not None:
        return None
    useless = ("files_conn_id", "file_name", "overwrite", "recording", "screenshots")
    unused = [name for name in useless if getattr(options, name)]
    return f"{' and '.join(unused)} need{'s' if len(unused) == 1 else ''} files_to." if unused else None


def _if_exists(options: FileOptions) -> str | None:
    choices = get_args(IfExists)
    if options.if_exists is not None and options.if_exists not in choices:
        listed = ", ".join(map(repr, choices[:-1]))
        return f"if_exists must be {listed} or {choices[-1]!r}, not {options.if_exists!r}."
    if options.overwrite and options.if_exists not in (None, "replace"):
        return f"overwrite=True contradicts if_exists={options.if_exists!r}; leave it out."
    return None


def _manifest(options: FileOptions, output_to: Any) -> str | None:
    given = [name for name in ("if_exists", "manifest_to") if getattr(options, name) is not None]
    if given and options.files_to is None and output_to is None:
        return f"{' and '.join(given)} need{'s' if len(given) == 1 else ''} files_to or output_to."
    if options.manifest_to is not None and options.manifest_to == output_to:
        return "manifest_to and output_to are the same file."
    return _manifest_address(options.manifest_to)


def _manifest_address(address: Any) -> str | None:
    from airflow_skyvern.results.destination import complaint_about_file

    return None if address is None else complaint_about_file("manifest_to", address)


def _name(template: Any) -> str | None:
    if template is None or not isinstance(template, str):
        return None
    if unknown := unknown_placeholders(template):
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        return f"file_name: {{{unknown[0]}}} is not a placeholder; use {known}."
    if not is_dynamic(template) and ("/" in template or "\\" in template):
        return "file_name is a name, not a path; put folders into files_to."
    return None


def _expected(options: FileOptions) -> str | None:
    expected: Any = options.expect_files
    if expected is None or (isinstance(expected, str) and expected):
        return None
    if _is_count(expected):
        return None if expected >= 0 else "expect_files must not be negative."
    if _is_range(expected) or (isinstance(expected, list | tuple) and expected and _are_patterns(expected)):
        return None
    return f"expect_files must be a number, [least, most], or name patterns such as ['*.pdf'], not {expected!r}."


def _are_patterns(expected: Sequence[Any]) -> bool:
    return all(isinstance(item, str) and item for item in expected)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_range(expected: Any) -> bool:
    """Return whether this is ``[least, most]`` rather than name patterns; None means no upper limit."""
    if not isinstance(expected, list | tuple) or len(expected) != 2:  # noqa: PLR2004  least and most
        return False
    least, most = expected
    return _is_count(least) and least >= 0 and (most is None or (_is_count(most) and least <= most))


def _missing(expected: Any, names: Sequence[str]) -> str | None:
    """Describe the expected files that are missing."""
    if isinstance(expected, int):
        return None if len(names) == expected else f"{_files(expected)} {'was' if expected == 1 else 'were'} expected"
    if _is_range(expected):
        least, most = expected
        if len(names) >= least and (most is None or len(names) <= most):
            return None
        return f"{least} to {most} files were expected" if most is not None else f"at least {_files(least)} expected"
    patterns = [expected] if isinstance(expected, str) else list(expected)
    unmatched = [pattern for pattern in patterns if not any(_matches(name, pattern) for name in names)]
    return f"no file matches {', '.join(unmatched)}" if unmatched else None


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name.casefold(), pattern.casefold())


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"

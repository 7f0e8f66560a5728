"""What Airflow masks in the logs of this process."""

from __future__ import annotations

from importlib import import_module

import airflow


def forget_secrets() -> None:
    """Let Airflow 2 forget what a test has named a secret: it masks one of one character, too, in all later tests."""
    if airflow.__version__.startswith("2."):
        masker = import_module("airflow.utils.log.secrets_masker")._secrets_masker()
        masker.patterns, masker.replacer = set(), None

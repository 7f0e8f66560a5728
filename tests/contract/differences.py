"""
What older servers answer otherwise, as data: which tests of the contract fail there, and for want of what.

Each is expected to fail on a real server before the version, and the suite fails when one does not: so this stays
true. The fake answers as the newest one, and is not concerned. What the provider makes of a difference is said by the
table in :mod:`airflow_skyvern.client.versions`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_skyvern.client import versions

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Feature


@dataclass(frozen=True)
class Difference:
    """
    :param before: The version from which on the test passes.
    :param lacks: What the older server lacks, or says otherwise.
    :param tests: The names of the tests, as a regular expression.
    """

    before: str
    lacks: str
    tests: str


def _of(feature: Feature, tests: str) -> Difference:
    return Difference(feature.since, feature.what, tests)


DIFFERENCES = (
    _of(
        versions.RETRY_POLICIES,
        r"test_a_retry_of_skyvern_is_pending|test_a_run_that_waits_for_its_retry|test_a_started_run_is_created"
        r"|test_a_run_that_is_over_can_be_started_once_more|test_a_list_of_active_runs_says_what_waits_read",
    ),
    _of(
        versions.FILE_IDS, r"refused_with_the_same_words.*file ids are not|test_each_limit.*-50-422-at most 50 items1"
    ),
    _of(versions.RETENTION, r"retention_days must be|test_each_limit.*-365-422"),
    _of(versions.UPLOADS, r"test_a_file_can_be_uploaded|test_an_uploaded_file_is_deleted_once"),
    _of(
        versions.FILES_BY_ID,
        r"test_a_file_that_a_run_has_saved|test_an_artifact_has_the_same|test_artifacts_can_be_narrowed"
        r"|test_a_part_of_an_artifact|test_the_head_of_an_artifact|test_a_test_of_a_real_run_is_green\[file_out",
    ),
    _of(versions.SINGLE_CREATION, r"idempotency_key|test_the_workflow_of_prompts|test_a_block_takes_each_engine"),
    _of(versions.EXTENDED_SESSIONS, r"test_what_does_not_exist.*extend browser session"),
    _of(versions.BROWSER_TYPES, r"test_what_nobody_has_made.*list browser types"),
    _of(
        versions.WORKFLOW_FILES,
        r"test_workflow_files\.py.*(test_an_update_is_refused_when|TestTheForm|TestOnce)"
        r"|test_public_definitions\.py",
    ),
    _of(versions.CLEAN_REFUSALS, r"refused_with_the_same_words.*Missing value"),
    Difference("1.0.56", "all that the check wants to be there", r"test_a_real_server_is_in_order"),
    Difference(
        "1.0.56", "files for a run on SQLite (on PostgreSQL it has them)", r"test_a_file_can_be_uploaded_and_used"
    ),
    Difference("1.0.56", "the mark that an engine was chosen (engine_pinned)", r"test_a_block_takes_each_engine"),
    Difference("1.0.55", "starts without a value for a credential", r"test_a_run_takes_the_id_of_a_credential"),
    Difference("1.0.55", "the fields that blocks have got since", r"test_a_block_has_the_same_fields"),
    Difference("1.0.55", "endpoints of its description", r"test_each_endpoint_that_skyvern_describes"),
    Difference(
        "1.0.55",
        "blocks that end a run (terminate)",
        r"test_a_terminated_run|test_the_timeline_tells_the_blocks|test_a_test_of_a_real_run_is_green\[terminate"
        r"|test_the_poller_waits_for_many_runs|test_pull_push_pull",
    ),
    Difference(
        "1.0.55",
        "the present words about a wrong address of a webhook",
        r"refused_with_the_same_words.*Invalid webhook_url|test_each_limit.*-2083-400"
        r"|test_a_webhook_can_be_sent_again",
    ),
    Difference("1.0.55", "credentials without a password", r"test_a_login_without_a_password"),
)


def difference_for(test: str, version: str) -> Difference | None:
    """
    Return why a test fails on a server of this version, if it does.

    :param test: The test's id, with its file.
    """
    on_fake = "[fake" in test
    found = (one for one in DIFFERENCES if versions.is_older(version, one.before) and re.search(one.tests, test))
    return None if on_fake else next(found, None)

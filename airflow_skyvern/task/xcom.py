"""The XComs of a task that runs something in Skyvern. Their keys are stored by Airflow, so they do not change."""

from __future__ import annotations

RUN_ID = "run_id"
"""The id of the task's run, from its start on."""

APP_URL = "app_url"
"""The address of the run's page in Skyvern."""

AWAITING_PERSON = "awaiting_person"
"""Where a paused run waits for a person: ``run_id`` and ``app_url``."""

APPROVAL = "approval"
"""The last answer of a person to a paused run: the answer, by whom, where, and when."""

CONNECTION_AND_RUN_KEY = "connection_and_run_key"
"""
How the run of a task is found that ended without our code: connection id, and tag of the attempt group. The API
server reads it when a user marks the task, the scheduler when the DAG run ends. A task that runs an agent has them
for its newest tool call, and for all calls in ``calls``, with run id and address.
"""

WORKFLOW_VERSION = "workflow_version"
"""What a workflow file's task runs: ``file``, ``workflow_id``, ``version``, ``digest`` of the content."""

FILES = "files"
"""The files that the run downloaded, as they were stored: a list of path, filename, size and checksum."""

EVIDENCE = "evidence"
"""Recording and screenshots of the run, in the same form."""

MANIFEST = "manifest"
"""The manifest of the run's files: path, size and checksum."""

BROWSER_SESSION = "browser_session"
"""
For a task that has opened a browser session: ``browser_session_id``, ``app_url``, ``skyvern_conn_id``,
``installation``, and ``ends_with_dag_run``. The scheduler reads it when the DAG run ends.
"""

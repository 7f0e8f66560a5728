"""What Airflow discovers about this provider. Imports nothing: every Airflow component calls it."""

from __future__ import annotations

from typing import Any

CONNECTION_TYPE: dict[str, Any] = {
    "connection-type": "skyvern",
    "hook-class-name": "airflow_skyvern.hooks.SkyvernHook",
    "hook-name": "Skyvern",
    "ui-field-behaviour": {
        "hidden-fields": ["login", "schema"],
        "relabeling": {
            "password": "API key",
            "host": "Base URL",
            "port": "Port (needed for the Test button)",
        },
        "placeholders": {
            "host": "https://api.skyvern.com",
            "port": "443",
            "password": "Skyvern, Settings, API keys",
        },
    },
    "conn-fields": {
        "timeout": {
            "label": "Timeout (seconds)",
            "description": "How long one request to Skyvern may take. Default: 30.",
            "schema": {"type": ["number", "null"], "minimum": 1},
        },
        "proxy": {
            "label": "Proxy",
            "description": "Address of an HTTP proxy, such as http://proxy.example.com:3128.",
            "schema": {"type": ["string", "null"], "format": "password"},
        },
        "verify": {
            "label": "Verify TLS certificates",
            "description": "Turn off only for tests. For a private authority, put the path of its "
            'certificates into the extra JSON: {"verify": "/path/ca.pem"}.',
            "schema": {"type": ["boolean", "null"], "default": True},
        },
    },
}


def get_provider_info() -> dict[str, Any]:
    """Return the metadata of this provider."""
    return {
        "package-name": "airflow-provider-skyvern",
        "name": "Skyvern",
        "description": "Run AI browser automations with `Skyvern <https://www.skyvern.com/>`__.",
        "integrations": [
            {
                "integration-name": "Skyvern",
                "external-doc-url": "https://www.skyvern.com/docs/",
                "tags": ["service"],
            }
        ],
        "hooks": [{"integration-name": "Skyvern", "python-modules": ["airflow_skyvern.hooks"]}],
        "operators": [{"integration-name": "Skyvern", "python-modules": ["airflow_skyvern.operators"]}],
        "sensors": [{"integration-name": "Skyvern", "python-modules": ["airflow_skyvern.sensors"]}],
        "triggers": [{"integration-name": "Skyvern", "python-modules": ["airflow_skyvern.triggers"]}],
        "connection-types": [CONNECTION_TYPE],
        "extra-links": ["airflow_skyvern.links.SkyvernRunLink"],
        "cli": ["airflow_skyvern.cli.get_cli_commands"],
    }

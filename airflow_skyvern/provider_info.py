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
        "app_url": {
            "label": "Skyvern UI address",
            "description": "Where people reach Skyvern's web UI, such as https://skyvern.example.com: the button "
            '"Skyvern run" leads there. Default: the address that the server gives, which for a server of your own '
            "may be http://localhost:8080.",
            "schema": {"type": ["string", "null"]},
        },
        "verify": {
            "label": "Verify TLS certificates",
            "description": "Turn off only for tests. For a private authority, put the path of its "
            'certificates into the extra JSON: {"verify": "/path/ca.pem"}.',
            "schema": {"type": ["boolean", "null"], "default": True},
        },
    },
}

CONFIG: dict[str, Any] = {
    "skyvern": {
        "description": "Settings of the Skyvern provider.",
        "options": {
            "installation": {
                "description": "The name of this Airflow installation among those that share a Skyvern organization. "
                "Runs carry it, so that no installation resumes or cancels another's; one that is a copy of another "
                "needs a name of its own. Default: [api] base_url.",
                "version_added": "0.1.0",
                "type": "string",
                "example": "production",
                "default": "",
            },
            "max_answer_bytes": {
                "description": "The largest answer of Skyvern that is read, in bytes. The answer for a run holds "
                "its output; reading it takes three to nine times as much memory, depending on its form.",
                "version_added": "0.1.0",
                "type": "integer",
                "example": "1073741824",
                "default": "268435456",
            },
            "max_xcom_bytes": {
                "description": "The largest output that is pushed to XCom, in bytes of JSON; a larger one fails the "
                "task, whose retry takes the same run.",
                "version_added": "0.1.0",
                "type": "integer",
                "example": "10485760",
                "default": "33554432",
            },
            "webhook_connections": {
                "description": "Ids of the Skyvern connections whose webhooks the API server takes, separated by "
                "commas, at /skyvern/webhooks/<connection id>. Nothing is taken while this is empty. Airflow 3.",
                "version_added": "0.1.0",
                "type": "string",
                "example": "skyvern_default",
                "default": "",
            },
            "webhook_max_bytes": {
                "description": "The largest webhook that is taken, in bytes. It holds the output of the run, twice.",
                "version_added": "0.1.0",
                "type": "integer",
                "example": "16777216",
                "default": "8388608",
            },
            "webhook_rate": {
                "description": "Webhooks per second that one worker of the API server takes, twice as many at once; "
                "the others are answered with 429.",
                "version_added": "0.1.0",
                "type": "float",
                "example": "20",
                "default": "100",
            },
            "webhook_max_age": {
                "description": "Seconds after the end of a run for which its webhook is taken. Keep asset events "
                "(airflow db clean) for at least as long: by them a repeated webhook is recognized.",
                "version_added": "0.1.0",
                "type": "float",
                "example": "86400",
                "default": "604800",
            },
        },
    }
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
        "operators": [
            {
                "integration-name": "Skyvern",
                "python-modules": ["airflow_skyvern.operators", "airflow_skyvern.schedules.guard"],
            }
        ],
        "sensors": [{"integration-name": "Skyvern", "python-modules": ["airflow_skyvern.sensors"]}],
        "triggers": [{"integration-name": "Skyvern", "python-modules": ["airflow_skyvern.triggers"]}],
        "asset-uris": [
            {
                "schemes": ["skyvern"],
                "handler": "airflow_skyvern.assets.sanitize_uri",
                "factory": "airflow_skyvern.assets.create_asset",
                "to_openlineage_converter": "airflow_skyvern.assets.convert_asset_to_openlineage",
            }
        ],
        "plugins": [{"name": "skyvern", "plugin-class": "airflow_skyvern.plugin.SkyvernPlugin"}],
        "config": CONFIG,
        "connection-types": [CONNECTION_TYPE],
        "extra-links": ["airflow_skyvern.links.SkyvernRunLink"],
        "task-decorators": [{"name": "skyvern", "class-name": "airflow_skyvern.decorators.skyvern_task"}],
        "cli": ["airflow_skyvern.cli.get_cli_commands"],
    }

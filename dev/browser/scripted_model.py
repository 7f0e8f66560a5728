"""A scripted language model on loopback, with an OpenAI-compatible endpoint, which drives a real Skyvern.

Skyvern asks one question per request: a long prompt with the goal, the block's parameters and the page. QUESTIONS
knows each by a phrase of it and names the function that answers; what to do on a page is in `script.RULES`. The
questions and answers of the last runs are in `ScriptedModel.asked`, to find out what went wrong.
"""

from __future__ import annotations

import collections
import http.server
import json
import re
import time
from typing import TYPE_CHECKING, Any

from airflow_skyvern.testing.serving import serve_in_thread
from dev.browser.prompt import Prompt
from dev.browser.script import NO_RULE, RULES, Act

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

Json = dict[str, Any]
FIELD_ACTIONS = ("INPUT_TEXT", "UPLOAD_FILE")
VALUE_FIELDS = {"INPUT_TEXT": "text", "UPLOAD_FILE": "file_url", "KEYPRESS": "key"}
STATUSES = {"COMPLETE": "complete", "TERMINATE": "terminate"}


def plan(prompt: Prompt) -> list[Act]:
    """Return what to do for the prompt's goal on the prompt's page."""
    for rule in RULES:
        if goal := re.search(rule.goal, prompt.goal, re.IGNORECASE):
            known = {**prompt.parameters, **{key: value for key, value in goal.groupdict().items() if value}}
            for shown, acts in rule.steps:
                if re.search(_filled(shown, known), prompt.seen, re.IGNORECASE):
                    return [_with_values(act, known) for act in acts]
    return [NO_RULE]


def _with_values(act: Act, known: Json) -> Act:
    return Act(**{name: _filled(text, known) for name, text in vars(act).items()})


def _filled(text: str, known: Json) -> str:
    return re.sub(r"\{([a-z]\w*)\}", lambda name: str(known.get(name[1], name[0])), text)


def next_actions(prompt: Prompt) -> Json:
    """Answer what to do next."""
    acts = plan(prompt)
    last = acts[-1]
    answer = {
        "user_goal_stage": "scripted",
        "user_goal_achieved": last.kind == "COMPLETE",
        "action_plan": last.reason,
        "actions": [_action(prompt, act) for act in acts],
    }
    if "place_to_enter_verification_code" in prompt.text:
        answer |= _wants_code(here="Verification code" in prompt.seen)
    return {**answer, "failure_categories": [_category(last)]} if last.category else answer


def _wants_code(*, here: bool) -> Json:
    wanted = {"place_to_enter_verification_code": here, "should_enter_verification_code": here}
    return {"verification_code_reasoning": "scripted", "should_verify_by_magic_link": False, **wanted}


def _action(prompt: Prompt, act: Act) -> Json:
    action: Json = {"action_type": act.kind, "reasoning": act.reason, "confidence_float": 1.0, "id": None}
    if act.target:
        action["id"] = prompt.page.find(act.target, fields=act.kind in FIELD_ACTIONS)
        action["user_detail_query"] = action["user_detail_answer"] = act.target
    if act.kind in VALUE_FIELDS:
        action[VALUE_FIELDS[act.kind]] = act.value
    return {**action, "errors": _errors(prompt, act.reason)} if act.category else action


def _category(act: Act) -> Json:
    return {"category": act.category, "confidence_float": 1.0, "reasoning": act.reason}


def _errors(prompt: Prompt, reasoning: str) -> list[Json]:
    """Report every code of the block's error_code_mapping: the script cannot tell which of them fits."""
    codes = prompt.value_after("user defined errors") or {}
    return [{"error_code": code, "reasoning": reasoning, "confidence_float": 1.0} for code in codes]


def check_goal(prompt: Prompt) -> Json:
    last = plan(prompt)[-1]
    status = STATUSES.get(last.kind, "continue")
    achieved = status == "complete"
    told = {"page_info": "", "thoughts": last.reason, "failure_categories": []}
    return {**told, "user_goal_achieved": achieved, "status": status}


def check_criterion(prompt: Prompt) -> Json:
    """Answer a validation block, whose criterion is a text that the page must show."""
    met = prompt.goal.casefold() in prompt.seen.casefold()
    reason = f"The page {'shows' if met else 'does not show'}: {prompt.goal}"
    action = {"action_type": "COMPLETE" if met else "TERMINATE", "confidence_float": 1.0, "reasoning": reason}
    return {"page_info": "", "thoughts": "", "actions": [action]}


def extract(prompt: Prompt) -> Any:
    """Fill the block's JSON schema: lists of objects from the page's tables, the rest from "its name: value"."""
    schema = prompt.value_after("JSON schema format")
    return _by_schema(_without_references(schema, schema), prompt) if schema else {"rows": prompt.page.table()}


def _without_references(part: Any, schema: Json) -> Any:
    """Put definitions in the place of the references to them: pydantic writes nested models so."""
    if isinstance(part, list):
        return [_without_references(one, schema) for one in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        part = schema["$defs"][part["$ref"].rpartition("/")[2]]
    return {key: _without_references(one, schema) for key, one in part.items() if key != "$defs"}


def _by_schema(schema: Json, prompt: Prompt, name: str = "") -> Any:
    if schema.get("type") == "array":
        rows = [{_key(heading): text for heading, text in row.items()} for row in prompt.page.table()]
        kinds = schema["items"]["properties"].items()
        return [{key: _scalar(kind, row.get(_key(key))) for key, kind in kinds} for row in rows]
    if schema.get("type") == "object":
        return {key: _by_schema(kind, prompt, key) for key, kind in schema["properties"].items()}
    found = re.search(rf"{name.replace('_', '.')}: *([^\n]+)", prompt.seen_text, re.IGNORECASE)
    return _scalar(schema, found and found[1].strip())


def _key(heading: str) -> str:
    return re.sub(r"\W+", "_", heading.strip().casefold())


def _scalar(kind: Json, text: str | None) -> Any:
    if text is None or kind.get("type") != "number":
        return text
    number = re.search(r"-?[\d,]*\.?\d+", text)
    return float(number[0].replace(",", "")) if number else None


def summary(prompt: Prompt) -> Json:
    goal = re.search(
        r"'(?:navigation_goal|data_extraction_goal)': '([^']*)'|extraction goal:\s*```\n(.*?)\n", prompt.text
    )
    return {"summary": f"Going to: {(goal[1] or goal[2]) if goal else 'run this block'}"}


def input_context(prompt: Prompt) -> Json:
    flags = ("is_search_bar", "is_location_input", "is_date_related", "is_text_captcha")
    return {"field": "", "is_required": True, "date_format": None, **dict.fromkeys(flags, False)}


def why_too_long(prompt: Prompt) -> Json:
    why = Act("TERMINATE", reason="The scripted steps did not reach the goal in time.", category="MAX_STEPS_EXCEEDED")
    errors = _errors(prompt, why.reason)
    return {"page_info": "", "reasoning": why.reason, "errors": errors, "failure_categories": [_category(why)]}


def which_errors(prompt: Prompt) -> Json:
    reason = plan(prompt)[-1].reason
    return {"reasoning": reason, "errors": _errors(prompt, reason)}


QUESTIONS: tuple[tuple[str, str, Callable[[Prompt], Any]], ...] = (
    ("extract-action", "Identify actions to help user progress towards the user goal", next_actions),
    ("check-user-goal", "to determine the status of the task", check_goal),
    ("check-user-goal", "to determine whether the user goal has been completed", check_goal),
    ("check-user-goal", "determine if the user has completed their goal", check_goal),
    ("validation", "the complete/terminate criterion", check_criterion),
    ("extract-information", "extract the requested information from the screenshot", extract),
    ("input-context", "Extract some detailed information from the context/reasoning", input_context),
    ("data-extraction-summary", "summarize what data you're going to extract", summary),
    ("block-description", "Generate a summary for the following block", summary),
    ("workflow-title", "title for a browser automation workflow", lambda _: {"title": "Scripted workflow"}),
    ("max-steps-or-retries", "ummarize the main reason", why_too_long),
    ("user-errors", "surface user-defined errors", which_errors),
    ("other", "", lambda _: {"llm_response": "This is the scripted answer."}),
)


def answer(text: str) -> tuple[str, Any]:
    """Return which question a prompt is, and the answer."""
    name, _, function = next(question for question in QUESTIONS if question[1] in text)
    return name, function(Prompt(text))


def text_of(messages: list[Json]) -> str:
    """Return the text of a chat, without its pictures."""
    parts = [part for message in messages for part in (_parts(message["content"]))]
    return "\n".join(part["text"] for part in parts if part["type"] == "text")


def _parts(content: Any) -> list[Json]:
    return content if isinstance(content, list) else [{"type": "text", "text": content or ""}]


def completion(model: str, text: str, content: Any) -> Json:
    """Wrap an answer as the API of chat completions does."""
    message = {"role": "assistant", "content": json.dumps(content)}
    tokens = {"prompt_tokens": len(text) // 4, "completion_tokens": len(message["content"]) // 4}
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {**tokens, "total_tokens": sum(tokens.values())},
    }


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = text_of(request["messages"])
        try:
            name, content = answer(text)
            status, body = 200, completion(request["model"], text, content)
        except Exception as error:  # Skyvern retries or fails the block; `asked` says why
            name, content = "error", repr(error)
            status, body = 500, {"error": {"message": content}}
        self.server.asked.append((name, text, content))
        self._send(status, json.dumps(body).encode())

    def _send(self, status: int, raw: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing: the questions are kept in memory."""


class _Server(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        self.asked: collections.deque[tuple[str, str, Any]] = collections.deque(maxlen=500)
        super().__init__(("127.0.0.1", 0), _Handler)


class ScriptedModel:
    """The model, in threads of this process."""

    def __init__(self) -> None:
        self._server = _Server()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def asked(self) -> list[tuple[str, str, Any]]:
        """The last questions: name, prompt, answer."""
        return list(self._server.asked)

    def start(self) -> Self:
        serve_in_thread(self._server)
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

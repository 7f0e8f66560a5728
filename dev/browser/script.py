"""What the scripted model does on the portal: rules as data.

The first rule whose goal is found in the block's goal is used; of its steps, the first one whose pattern is found in
what the model sees: the page's address, its content, and the actions so far. Elements have the text, label or name
that a person sees. {name} stands for a named group of the goal or for a parameter of the block.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Act:
    """One action of the model. `target` names the element, `value` is what is typed, pressed or chosen."""

    kind: str
    target: str = ""
    value: str = ""
    reason: str = ""
    category: str = ""


def click(target: str) -> Act:
    return Act("CLICK", target, reason=f"Click '{target}'")


def fill(target: str, value: str) -> Act:
    return Act("INPUT_TEXT", target, value, reason=f"Fill in '{target}'")


def choose_file(target: str, value: str) -> Act:
    return Act("UPLOAD_FILE", target, value, reason=f"Choose the file for '{target}'")


def press(key: str) -> Act:
    return Act("KEYPRESS", value=key)


def done(reason: str) -> Act:
    return Act("COMPLETE", reason=reason)


def give_up(reason: str, category: str = "UNKNOWN") -> Act:
    return Act("TERMINATE", reason=reason, category=category)


@dataclass(frozen=True)
class Rule:
    """What to do for goals like this one."""

    goal: str
    steps: tuple[tuple[str, tuple[Act, ...]], ...]


RULES = (
    Rule(
        r"log ?in|sign in",
        (
            (r"Signed in as", (done("The portal greets the user by name."),)),
            (
                r"Wrong user name or password",
                (give_up("The portal refused the user name or the password.", "AUTH_FAILURE"),),
            ),
            (r"Verification code", (fill("Verification code", "{verification_code}"), click("Verify"))),
            (r"Password", (fill("User name", "{username}"), fill("Password", "{password}"), click("Sign in"))),
        ),
    ),
    Rule(
        r"download (the )?invoice (?P<number>INV-\d+)",
        (
            (r"Click 'Download \S+ PDF'", (done("The file was downloaded."),)),
            (r"Download {number} PDF", (click("Download {number} PDF"),)),
            (r"Download INV-", (give_up("The table has no invoice {number}.", "ELEMENT_NOT_FOUND"),)),
        ),
    ),
    Rule(
        r"download .*csv",
        (
            (r"Click 'Download all as CSV'", (done("The file was downloaded."),)),
            (r"Download all as CSV", (click("Download all as CSV"),)),
        ),
    ),
    Rule(
        r"upload the receipt",
        (
            (r"Receipt received", (done("The portal shows the receipt it received."),)),
            (r"Receipt file", (choose_file("Receipt file", "{receipt}"), click("Send receipt"))),
        ),
    ),
    Rule(
        r"return the number",
        (
            (r"Password", (give_up("The page asks to sign in.", "AUTH_FAILURE"),)),
            (r".", (done("The number can be read."),)),
        ),
    ),
    Rule(r"keep trying", ((r".", (press("Tab"),)),)),
    Rule(
        r"extract|read|list|open",
        (
            (r"\(404\)|\(500\)", (give_up("The portal shows an error page.", "WEBSITE_ERROR"),)),
            (r".", (done("The page is open."),)),
        ),
    ),
)
NO_RULE = give_up("Nothing on this page leads to the goal.", "ELEMENT_NOT_FOUND")

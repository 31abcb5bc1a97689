"""Conversations of a fixture with its client, as fixture.json describes them: rounds of requests, then a text. Knows no
SDK: whoever drives it sends the requests of a round in the way of its protocol revision. The twin of dialog.mjs."""

import base64
import hashlib
import hmac
import json
import re
import secrets

KEY = secrets.token_bytes(32)

# Whether an answer has the shape that its request wants; what does not is asked for again.
SHAPES = {
    "elicitation/create": lambda answer: isinstance(answer.get("action"), str),
    "sampling/createMessage": lambda answer: "role" in answer and "content" in answer,
    "roots/list": lambda answer: isinstance(answer.get("roots"), list),
}


def needed(request: dict) -> dict:
    """The capability that a request needs, as a ClientCapabilities object."""
    if request["method"] == "roots/list":
        return {"roots": {}}
    if request["method"] == "sampling/createMessage":
        return {"sampling": {"tools": {}} if "tools" in request["params"] else {}}
    return {"elicitation": {"url": {}} if request["params"].get("mode") == "url" else {}}


def allowed(request: dict, declared: dict) -> bool:
    """Whether `declared` (ClientCapabilities) allows the request. An elicitation without modes means forms."""
    [(kind, parts)] = needed(request).items()
    given = declared.get(kind)
    if given is None:
        return False
    if kind == "elicitation" and not parts:
        return "form" in given or "url" not in given
    return all(part in given for part in parts)


def advance(dialog: dict, arguments: dict, declared: dict, state: dict | None = None, responses: dict | None = None):
    """One step: `(requests, state, None)` with what is still to be answered, or `(None, None, text)` at the end.
    `responses` are answers by the requests' keys; unknown keys are ignored."""
    state = state or {"round": 0, "answers": {}}
    responses = responses or {}
    number, answers = state["round"], state["answers"]

    def asked(index):
        every = dialog["rounds"][index].items()
        return {key: request for key, request in every if not dialog.get("declared_only") or allowed(request, declared)}

    def answered(key, request):
        return isinstance(responses.get(key), dict) and SHAPES[request["method"]](responses[key])

    if all(answered(key, request) for key, request in asked(number).items()):
        answers = {**answers, **{key: responses[key] for key in asked(number)}}
        number += 1
    if number == len(dialog["rounds"]):
        return None, None, filled(dialog["text"], {"arguments": arguments, **answers})
    return filled_deep(asked(number), {"arguments": arguments}), {"round": number, "answers": answers}, None


def filled(template: str, values: dict) -> str:
    """`{a.b}` becomes that value: strings as they are, anything else as JSON, what is missing as nothing."""

    def value(found):
        at = values
        for part in found[1].split("."):
            at = at.get(part) if isinstance(at, dict) else None
        return at if isinstance(at, str) else "" if at is None else json.dumps(at)

    return re.sub(r"\{([a-z0-9_.]+)\}", value, template)


def filled_deep(value, values: dict):
    if isinstance(value, str):
        return filled(value, values)
    if isinstance(value, list):
        return [filled_deep(part, values) for part in value]
    if isinstance(value, dict):
        return {key: filled_deep(part, values) for key, part in value.items()}
    return value


def signature(payload: str) -> str:
    return hmac.new(KEY, payload.encode(), hashlib.sha256).hexdigest()


def seal(state: dict) -> str:
    """A state as a string that cannot be changed by whoever carries it."""
    payload = base64.urlsafe_b64encode(json.dumps(state).encode()).decode()
    return f"{payload}.{signature(payload)}"


def unseal(sealed: str) -> dict:
    """The state of a string made by `seal`; ValueError for any other."""
    payload, _, given = sealed.partition(".")
    if not hmac.compare_digest(signature(payload).encode(), given.encode()):
        raise ValueError("not our state")
    return json.loads(base64.urlsafe_b64decode(payload))

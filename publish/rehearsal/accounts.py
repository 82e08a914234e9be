"""Who am I, may I, and what has been counted."""

from __future__ import annotations

from starlette.responses import Response

from publish.rehearsal.call import Call, answer


def whoami(call: Call) -> Response:
    user = call.someone()
    organizations = [
        {"type": "org", "name": name, "fullname": name, "roleInOrg": "admin", "isEnterprise": False}
        for name in call.hub.store.namespaces_of(user.name)
    ]
    token = {"displayName": "rehearsal", "role": user.role}
    return answer(
        {
            "type": "user",
            "id": user.key[:24],
            "name": user.name,
            "fullname": user.name,
            "isPro": False,
            "orgs": organizations,
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


def auth_check(call: Call) -> Response:
    call.may_download(call.repo)
    return answer({})


def stats(call: Call) -> Response:
    return answer(call.hub.stats.snapshot().document())


def reset(call: Call) -> Response:
    call.hub.stats.reset()
    return answer({})


HANDLERS = {"whoami": whoami, "auth-check": auth_check, "stats": stats, "stats-reset": reset}

"""The routes of the API by the client's method that uses each: the one place where the client writes paths.

``{noun}`` stands for one of NOUNS; every other part in braces is an argument of the method.
"""

from __future__ import annotations

from urllib.parse import quote

NOUNS = ("model", "dataset", "tokenization", "sae")

ROUTES: dict[str, tuple[str, str]] = {
    "status": ("GET", "/api/status"),
    "system": ("GET", "/api/system"),
    "system_history": ("GET", "/api/system/history"),
    "doctor": ("GET", "/api/doctor"),
    "running": ("GET", "/api/ps"),
    "openapi": ("GET", "/api/openapi.json"),
    "events": ("GET", "/api/events"),
    "jobs": ("GET", "/api/jobs"),
    "submit": ("POST", "/api/jobs"),
    "job": ("GET", "/api/jobs/{job}"),
    "edit_job": ("PATCH", "/api/jobs/{job}"),
    "remove_job": ("DELETE", "/api/jobs/{job}"),
    "stop": ("POST", "/api/jobs/{job}/stop"),
    "pause": ("POST", "/api/jobs/{job}/pause"),
    "resume": ("POST", "/api/jobs/{job}/resume"),
    "finalize": ("POST", "/api/jobs/{job}/finalize"),
    "retry": ("POST", "/api/jobs/{job}/retry"),
    "log": ("GET", "/api/jobs/{job}/log"),
    "metrics": ("GET", "/api/jobs/{job}/metrics"),
    "live": ("GET", "/api/jobs/{job}/live"),
    "checkpoints": ("GET", "/api/jobs/{job}/checkpoints"),
    "plan": ("POST", "/api/plan"),
    "artifacts": ("GET", "/api/{noun}s"),
    "artifact": ("GET", "/api/{noun}s/{ref}"),
    "remove": ("DELETE", "/api/{noun}s/{ref}"),
    "preview_dataset": ("POST", "/api/datasets/preview"),
    "sample": ("GET", "/api/datasets/{ref}/sample"),
    "preview_tokens": ("POST", "/api/models/{ref}/tokens"),
    "cached_models": ("GET", "/api/cache/models"),
    "features": ("GET", "/api/saes/{ref}/features"),
    "export_features": ("GET", "/api/saes/{ref}/features/export"),
    "compare": ("GET", "/api/saes/{ref}/features/compare"),
    "feature": ("GET", "/api/saes/{ref}/features/{index}"),
    "mark": ("PATCH", "/api/saes/{ref}/features/{index}"),
    "occurrences": ("GET", "/api/saes/{ref}/features/{index}/occurrences"),
    "inspect": ("POST", "/api/saes/{ref}/inspect"),
    "lists": ("GET", "/api/saes/{ref}/lists"),
    "label": ("GET", "/api/saes/{ref}/features/{index}/label"),
    "set_label": ("PUT", "/api/saes/{ref}/features/{index}/label"),
    "labels": ("GET", "/api/saes/{ref}/features/{index}/labels"),
    "accept_label": ("POST", "/api/saes/{ref}/labels/{label}/accept"),
    "reject_label": ("POST", "/api/saes/{ref}/labels/{label}/reject"),
    "export_labels": ("GET", "/api/saes/{ref}/labels/export"),
    "import_labels": ("POST", "/api/saes/{ref}/labels/import"),
    "estimate_labels": ("POST", "/api/saes/{ref}/labels/estimate"),
    "label_summary": ("GET", "/api/saes/{ref}/labels/summary"),
    "endpoints": ("GET", "/api/endpoints"),
    "templates": ("GET", "/api/templates"),
    "template": ("GET", "/api/templates/{name}"),
    "set_template": ("PUT", "/api/templates/{name}"),
    "session": ("GET", "/api/session"),
    "start_session": ("POST", "/api/session"),
    "stop_session": ("DELETE", "/api/session"),
    "steer": ("POST", "/api/steer"),
    "calibrate": ("POST", "/api/saes/{ref}/ranges"),
    "ranges": ("GET", "/api/saes/{ref}/ranges"),
    "steerings": ("GET", "/api/steerings"),
    "steering": ("GET", "/api/steerings/{steering}"),
    "mark_steering": ("PATCH", "/api/steerings/{steering}"),
    "remove_steering": ("DELETE", "/api/steerings/{steering}"),
    "export_steering": ("GET", "/api/steerings/{steering}/export"),
    "profiles": ("GET", "/api/profiles"),
    "save_profile": ("POST", "/api/profiles"),
    "profile": ("GET", "/api/profiles/{name}"),
    "remove_profile": ("DELETE", "/api/profiles/{name}"),
    "files": ("GET", "/api/saes/{ref}/files"),
    "file": ("GET", "/api/saes/{ref}/files/{file}"),
    "export_files": ("GET", "/api/exports/{export}/files"),
    "export_file": ("GET", "/api/exports/{export}/files/{file}"),
    "tokens": ("GET", "/api/tokens"),
    "create_token": ("POST", "/api/tokens"),
    "revoke_token": ("DELETE", "/api/tokens/{token}"),
    "secrets": ("GET", "/api/secrets"),
    "set_secret": ("PUT", "/api/secrets/{name}"),
    "remove_secret": ("DELETE", "/api/secrets/{name}"),
    "uploads": ("GET", "/api/uploads"),
    "create_upload": ("POST", "/api/uploads"),
    "upload": ("GET", "/api/uploads/{upload}"),
    "send_part": ("PUT", "/api/uploads/{upload}"),
    "remove_upload": ("DELETE", "/api/uploads/{upload}"),
}


def request(route: str, /, **parts: object) -> tuple[str, str]:
    """Method and path of a route. Whatever a part holds, it stays one part of the path."""
    method, path = ROUTES[route]
    return method, path.format(**{part: quote(str(value), safe="") for part, value in parts.items()})

"""The simulator's REST API as a client in another library sees it."""

from __future__ import annotations

import json
from typing import Any

import urllib3

from aggstream.simulator import SignedIn, Simulator


class Api:
    """Calls the simulator with the headers of one user."""

    def __init__(self, simulator: Simulator, pool: urllib3.PoolManager) -> None:
        self.simulator = simulator
        self.pool = pool
        self.headers = {"x-app-id": simulator.app_id}

    def sign_in(self, user_id: str = "usr_demo", *, lifetime: float | None = None) -> SignedIn:
        tokens = self.simulator.sign_in(user_id, lifetime=lifetime)
        self.headers["Authorization"] = f"Bearer {tokens.access_token}"
        return tokens

    def get(self, path: str, status: int = 200, /, **query: str) -> Any:
        return self._call("GET", path, status, fields=query)

    def post(self, path: str, body: Any, status: int = 200) -> Any:
        return self._call("POST", path, status, body=body if isinstance(body, str) else json.dumps(body))

    def refresh(self, refresh_token: str, status: int = 200) -> Any:
        return self.post("/auth/token/refresh", {"refreshToken": refresh_token}, status)

    def _call(self, method: str, path: str, status: int, **options: Any) -> Any:
        url = self.simulator.rest_url + path
        response = self.pool.request(method, url, headers=self.headers, timeout=20, retries=False, **options)
        assert response.status == status, response.data
        answer = response.json()
        assert status == 200 or isinstance(answer["error"], str)
        return answer


def everything(api: Api, **query: str) -> list[Any]:
    """Read all pages of the orders."""
    page = api.get("/execution/orders", 200, **query)
    rows = page["data"]
    while page["hasMore"]:
        page = api.get("/execution/orders", 200, cursor=page["nextCursor"], **query)
        rows += page["data"]
    assert page["nextCursor"] is None
    return list(rows)

"""As much of a browser as Django's admin needs."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from tools.http_calls import Answer, Caller


class Browser:
    """Keeps its cookies, and sends forms back with their token."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._cookies: dict[str, str] = {}

    def get(self, path: str) -> Answer:
        return self._kept(self._caller.call(path, Cookie=self._cookie))

    def post(self, path: str, **form: str) -> Answer:
        token = re.search(r'csrfmiddlewaretoken" value="([^"]+)', self.get(path).text)
        assert token is not None
        body = urlencode({"csrfmiddlewaretoken": token[1], **form}).encode()
        kind = "application/x-www-form-urlencoded"
        return self._kept(
            self._caller.call(path, "POST", body, Cookie=self._cookie, Content_Type=kind)
        )

    @property
    def _cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self._cookies.items())

    def _kept(self, answer: Answer) -> Answer:
        for line in answer.headers.get_all("set-cookie", []):
            name, _, rest = line.partition("=")
            self._cookies[name] = rest.partition(";")[0]
        return answer

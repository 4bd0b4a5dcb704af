"""HTTP answers of bounded length: who sends more than anybody should read is stopped in the middle of it."""

from typing import Any

import httpx

_MOST_BYTES = 64 << 20
"""Of an answer, once it is unpacked."""


class TooLong(Exception):
    """The answer was not read to its end."""


class BoundedClient(httpx.AsyncClient):
    """Follows no redirection: a question, and the key, go to whom the user has named."""

    def __init__(self, **options: Any) -> None:
        """Options of ``httpx.AsyncClient``."""
        super().__init__(follow_redirects=False, **options)
        # What is packed may unfold to a thousand times its size.
        self.headers["Accept-Encoding"] = "identity"

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """The whole answer.

        Raises:
            TooLong: it is longer than anybody should read.
        """
        options["stream"] = True
        streamed = await super().send(request, **options)
        body = bytearray()
        try:
            async for chunk in streamed.aiter_bytes():
                body += chunk
                if len(body) > _MOST_BYTES:
                    raise TooLong(f"answered with more than {_MOST_BYTES} bytes, which are not read")
        finally:
            await streamed.aclose()
        # As it is now: unpacked, and of known length.
        told = [one for one in streamed.headers.raw if one[0].lower() not in (b"content-encoding", b"content-length")]
        return httpx.Response(
            streamed.status_code, headers=told, content=bytes(body), request=request, extensions=streamed.extensions
        )

"""Faults of an S3 server: what it answers in place of, or after, what was asked for."""

from collections.abc import Callable

from tests.scripted_server import Reply, Request, ScriptedServer

#: Looks at a request, and may answer in the server's place.
Fault = Callable[[Request], Reply | None]


class Spoiled:
    """Answers requests well, but for what a test spoils.

    :param server: answers by :meth:`handle`
    """

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.server.handler = self.handle
        self.server.requests.clear()
        self.before: list[Fault] = []
        #: As ``before``, but the request is carried out all the same: its reply is lost.
        self.after: list[Fault] = []

    def answer(self, request: Request) -> Reply:
        """Carry a request out."""
        raise NotImplementedError

    def made(self, method: str = "", text: str = "") -> list[Request]:
        """Return the requests so far of a method whose target has ``text``."""
        return [
            each
            for each in list(self.server.requests)
            if method in ("", each.method) and text in each.target
        ]

    def handle(self, request: Request) -> Reply:
        """Answer a request; one that ended early has no effect."""
        if len(request.body) < int(request.headers.get("content-length", 0)):
            return Reply(raw=b"", then="fin")
        for fault in list(self.before):
            if (reply := fault(request)) is not None:
                return reply
        answer = self.answer(request)
        for fault in list(self.after):
            if (reply := fault(request)) is not None:
                return reply
        return answer


def refusal(status: int, code: str, message: str = "told by the server") -> Reply:
    """Return an error as S3 gives it."""
    return xml_answer(f"<Error><Code>{code}</Code><Message>{message}</Message></Error>", status)


def xml_answer(text: str, status: int = 200) -> Reply:
    """Return an answer whose body is XML."""
    body = b'<?xml version="1.0"?>' + text.encode()
    return Reply(status, body, {"Content-Type": "application/xml", "x-amz-request-id": "tx1"})


def times(number: int, reply: Callable[[], Reply], method: str = "", text: str = "") -> Fault:
    """Return a fault for the first ``number`` requests of a method whose target has ``text``."""
    left = [number]

    def fault(request: Request) -> Reply | None:
        if method not in ("", request.method) or text not in request.target or not left[0]:
            return None
        left[0] -= 1
        return reply()

    return fault

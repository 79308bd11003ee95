"""What the synchronous engine asks of Amazon Rekognition, and how a call can end without an answer."""

from __future__ import annotations

from typing import Any, Protocol

from modlake.exceptions import ModlakeTerminalError, ModlakeTransientError
from modlake.pipeline.outcomes import FailureCode


class ModerationApi(Protocol):
    """DetectModerationLabels with the parameters of one analysis."""

    async def detect_moderation_labels(self, source_ref: str) -> dict[str, Any]:
        """Judge the image at ``s3://bucket/key``, in one attempt.

        Raises ThrottledError, NoAnswerError or ImageFailedError; any other error concerns every image, and
        ends the analysis.
        """
        ...


class CallFailedError(ModlakeTransientError):
    """A call that may do better next time. Attribute: ``code``, of an image that it leaves unanswered."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class ThrottledError(CallFailedError):
    """The account's quota refused the call: nothing was judged or paid."""


class NoAnswerError(CallFailedError):
    """The service failed, or its answer was lost; in the second case the image was judged, and paid for.

    What failed, in the service or on the way to it, has too many names to go by: the message holds them.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, code=FailureCode.NO_ANSWER)


class ImageFailedError(ModlakeTerminalError):
    """Rekognition refused one image. Attributes: ``code``, ``is_final``.

    ``is_final``: the image itself is at fault. What else is wrong may be mended: a later attempt asks again.
    """

    def __init__(self, message: str, *, code: str, is_final: bool) -> None:
        super().__init__(message)
        self.code = code
        self.is_final = is_final

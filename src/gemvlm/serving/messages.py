"""What goes over the wire: OpenAI's chat completions in the part that a GEM can keep, and our own requests.

A field that asks for something the model can't do (tools, several choices, stop words, ...) is refused by name, unless
it has the value that asks for nothing: nothing is dropped in silence. Names and forms are those of the OpenAPI document
of the repository openai/openai-openapi.
"""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gemvlm.inference.phrases import LONGEST_EXPRESSION
from gemvlm.serving.engine import Reply

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "top_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logprobs": (False,),
    "stop": ([],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
"""Fields of OpenAI's that are taken with these values (or null) alone."""
UNUSED = ("user", "metadata", "safety_identifier", "prompt_cache_key")
"""Fields that speak of the caller and change no answer."""

Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ImageUrl(_Strict):
    url: str = Field(description="data:image/png;base64,... (PNG, JPEG or WebP)")
    detail: Literal["auto", "low", "high"] | None = Field(
        None, description="Without effect: every picture is read at the size that the model was made for"
    )


class TextPart(_Strict):
    type: Literal["text"]
    text: str


class ImagePart(_Strict):
    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]
    name: str | None = Field(None, description="Without effect: the model knows speakers by their role")


class StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: bool | None = None


class ChatRequest(BaseModel):
    """A conversation. Temperature 0 is the default here: the same question gets the same answer."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: Finite | None = Field(None, ge=0, le=2)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def unsupported(self) -> str | None:
        """The first field that asks for what can't be done, or None."""
        for name, value in (self.model_extra or {}).items():
            if value is not None and name not in UNUSED and value not in NEUTRAL.get(name, ()):
                return name
        return None


class PictureRequest(_Strict):
    """One image, as a data URL."""

    image: str = Field(description="data:image/png;base64,... (PNG, JPEG or WebP)")


class PointRequest(PictureRequest):
    expression: str = Field(min_length=1, max_length=LONGEST_EXPRESSION, description='What to point to: "red mug"')


class DepthRequest(PictureRequest):
    format: Literal["json", "png", "npz"] | None = Field(None, description="Instead of the Accept header")
    steps: int = Field(30, ge=1)
    guidance: Finite = Field(1.0, ge=0, le=20)
    ensemble: int = Field(1, ge=1)
    seed: int = Field(0, ge=0, lt=2**63)


class CameraBody(_Strict):
    """Focal lengths and principal point in pixels of the upright image, or the vertical angle of a centred camera.

    Centres of pixels are on whole numbers, as in OpenCV's matrices. Upright is after the turn that EXIF asks for.
    """

    fx: Finite | None = Field(None, gt=0)
    fy: Finite | None = Field(None, gt=0)
    cx: Finite | None = None
    cy: Finite | None = None
    fov_y_deg: Finite | None = Field(None, gt=0, lt=180)


Row = Annotated[list[Finite], Field(min_length=4, max_length=4)]


class LocateBody(PointRequest):
    """What to look for, through which camera. Depth is generated unless `depth` is measured; `fit`, measured depth of
    some pixels, is what generated depth is brought to. Both are 16-bit PNGs in millimetres, 0 where nothing is known.
    Or it is brought to the level surface at world z = `support_m`, on which the thing stands: there its foot, the lower
    edge of its box, tells where it is, if depth agrees.
    """

    camera: CameraBody
    camera_to_world: list[Row] | None = Field(None, min_length=4, max_length=4, description="Rigid, in metres")
    depth: str | None = Field(None, description="data:image/png;base64,... of the image's size")
    fit: str | None = Field(None, description="Likewise; models whose depth has no metres need this or another")
    support_m: Finite | None = Field(None, ge=-1e4, le=1e4, description="Metres; needs `camera_to_world`")
    steps: int = Field(30, ge=1)
    guidance: Finite = Field(1.0, ge=0, le=20)
    ensemble: int = Field(1, ge=1)
    seed: int = Field(0, ge=0, lt=2**63)


class LocateAnswer(BaseModel):
    """A place in metres (camera: x right, y down, z forward), or in `missing` what stood in the way of one."""

    point: Place | None
    camera_m: tuple[float, float, float] | None
    world_m: tuple[float, float, float] | None
    spread_m: float | None = Field(
        description="Half the distance between the quartiles of the depths around the point; null if from the foot"
    )
    depth_source: Literal["measured", "generated", "aligned", "foot"] | None
    missing: str | None
    text: str


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: str | None = None


class Choice(BaseModel):
    index: int = 0
    message: AnswerMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Place(BaseModel):
    """Fractions of the image's width and height: x to the right, y down."""

    x: float
    y: float


class PointAnswer(BaseModel):
    """`point` is null if the model's reply holds no place; `text` is that reply."""

    point: Place | None
    text: str
    usage: Usage


class DepthAnswer(BaseModel):
    """Depth with what its values mean. `data` is base64 of a 16-bit PNG (metres = count * scale, 0 = unknown) or, for
    kinds without a unit, of a float32 .npz (values, valid, meta).
    """

    kind: str
    unit: str
    scale: float | None
    source: str
    width: int
    height: int
    near: float = Field(description="The 2nd percentile of the valid values")
    far: float = Field(description="The 98th percentile of the valid values")
    confidence: float = Field(description="Mean over the pixels: 1 where the painted colours are a depth's")
    format: Literal["png16", "npz"]
    data: str


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "gemvlm"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """Every refusal and every failure has this form, OpenAI's."""

    error: ErrorDetail


class Health(BaseModel):
    status: str


def new_id() -> str:
    return "chatcmpl-" + uuid.uuid4().hex


def usage(reply: Reply) -> Usage:
    return Usage(
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.new_tokens,
        total_tokens=reply.prompt_tokens + reply.new_tokens,
    )


def completion(model: str, reply: Reply) -> ChatCompletion:
    """The whole answer as one object."""
    choice = Choice(message=AnswerMessage(content=reply.text), finish_reason="stop" if reply.finished else "length")
    return ChatCompletion(id=new_id(), created=int(time.time()), model=model, choices=[choice], usage=usage(reply))


def chunk(identity: str, created: int, model: str, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    """One piece of a streamed answer."""
    return {
        "id": identity,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}],
    }

"""Types of settings with bounds, and the reasons for the bounds, which error messages quote.

Without bounds, numbers that no computation can use would pass the checks and waste a run: weights
are stored in float32, which has 7 significant digits and a largest value of 3.4e38.
"""

from typing import Annotated, Any

from annotated_types import Interval, MaxLen, MinLen


class Reason:
    """Reason for the bounds of a type, stored as `reason` in its JSON Schema.

    Args:
        text: the reason, without a period.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Return the JSON Schema of the annotated type with the reason."""
        return {**handler(core_schema), "reason": self._text}


LearningRate = Annotated[
    float,
    Interval(ge=1e-10, le=1e3),
    Reason("below, no weight changes in float32; above, the first steps overflow"),
]
# Weights of losses, and temperatures.
Factor = Annotated[
    float,
    Interval(ge=1e-6, le=1e6),
    Reason("float32 has 7 digits, so that beyond one of two terms vanishes"),
]
Epsilon = Annotated[
    float, Interval(ge=1e-30, le=1), Reason("below, it vanishes in float32; above, nothing learns")
]
WeightDecay = Annotated[
    float, Interval(ge=0, le=100), Reason("above, the first steps remove all weights")
]
ClipNorm = Annotated[
    float,
    Interval(ge=1e-6, le=1e12),
    Reason("below, no weight changes; above, no gradient that float32 can hold is clipped"),
]
InitialStd = Annotated[
    float, Interval(ge=1e-6, le=100), Reason("beyond, the first step underflows or overflows")
]
Probability = Annotated[
    float,
    Interval(ge=1e-4, lt=1),
    Reason("of the at most 4,096 tokens of a window, one is masked and one is not"),
]

_MOST_QUESTION = 500
Question = Annotated[
    str,
    MinLen(1),
    MaxLen(_MOST_QUESTION),
    Reason("it is the title of the report and of the sweep's run in MLflow"),
]
_LONGEST_PATH = Reason("no path or name of a data set can be longer")
Name = Annotated[str, MinLen(1), MaxLen(4_096), _LONGEST_PATH]
NameOrEmpty = Annotated[str, MaxLen(4_096), _LONGEST_PATH]

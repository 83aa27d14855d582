"""A new engine: one file like this one, and one line in `crimson_core.judges.JUDGES`."""

from crimson_core.judges.model import Answer, ModelJudge
from crimson_core.protocol.prompt import prompt_for


class EchoEngine:
    """Says what its model's name says, to everything."""

    def __init__(self, model):
        self.model = model

    def write(self, questions):
        for place, question in enumerate(questions):
            yield place, Answer(self.model, finish_reason="stop", usage={"prompt_tokens": len(question.messages)})

    def signature(self):
        return {"judge": "echo", "answers": "the same", "model": self.model}


def echo_judge(model: str, *, guidelines: bool | None = None):
    return ModelJudge(EchoEngine(model), prompt_for("echo", guidelines))

"""The judge: everything Mezzotint can say about samples, as one JSON object and some pictures.

    judge(Question(Path("runs/mnist")), say) -> {"metrics": {"fd10k": {...}}, ...}

`question` says what is asked, `case` gathers what that takes, `parts` are functions of a case, and
`judging` makes one object of them. What is written: OUT/evaluation.json, whole or not at all, and
pictures under OUT/evaluation/.
"""

from mezzotint.judge.judging import judge
from mezzotint.judge.question import EXTRAS, PARTS, Question

__all__ = ["EXTRAS", "PARTS", "Question", "judge"]

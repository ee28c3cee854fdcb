"""Small networks whose answers are easy to write down."""

import torch
from torch import Tensor, nn

from mezzotint.diffusion import Condition, is_null


class Zero(nn.Module):
    """Answers 0 and remembers what it was given."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dummy = nn.Parameter(torch.zeros((), dtype=dtype))

    def forward(self, x: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        self.seen = (x, noise, condition)
        return torch.zeros_like(x)


class Mixed(nn.Module):
    """A fixed random network of the input and the noise level."""

    def __init__(self, channels: int = 2, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.first = nn.Conv2d(channels, 8, 3, padding=1, dtype=dtype)
            self.last = nn.Conv2d(8, channels, 3, padding=1, dtype=dtype)

    def forward(self, x: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        return self.last(torch.tanh(self.first(x) + noise[:, None, None, None]))


class Counting(nn.Module):
    """Half its input, plus 10 per known label and 0.1 per known style; counts its work."""

    def __init__(self) -> None:
        super().__init__()
        self.dummy = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.calls = self.rows = 0

    def forward(self, x: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        self.calls += 1
        self.rows += len(x)
        answer = x / 2
        for name, weight in (("label", 10.0), ("style", 0.1)):
            values = condition.factors.get(name)
            if values is not None:
                known = torch.where(is_null(values), 0.0, weight * values.double())
                answer = answer + known[:, None, None, None]
        return answer

"""The output layer while training: over the words of the data and a sample of the others.

The output layer of a small model with a large vocabulary costs as much as all other layers together, and nearly all of its
words never occur in the data. They still have to stay improbable, so a fixed sample of them stands for all (importance
sampling, as in Jean et al. 2015, arXiv:1412.2007). Held-out losses and what the model writes go through the whole layer.
"""

from collections.abc import Iterable

import torch


class SampledHead(torch.nn.Module):
    """An output layer that knows some of its words in training mode, and all of them in evaluation mode.

    Args:
        head: The model's own output layer, which is not trained.
        words: Token ids that occur in the data.
        sample: How many of the other words stand for all others.
        seed: Decides which.

    Attributes:
        places: (vocabulary,) the column of each word in training; -1 for words that have none.
    """

    def __init__(self, head: torch.nn.Linear, words: Iterable[int], sample: int, seed: int) -> None:
        super().__init__()
        self.head = head
        size = head.weight.shape[0]
        known = torch.tensor(sorted(set(words)))
        others = torch.ones(size, dtype=torch.bool)
        others[known] = False
        others = others.nonzero().squeeze(1)
        drawn = others[torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))[:sample]]
        chosen = torch.cat([known, drawn])
        device = head.weight.device
        self.places = torch.full((size,), -1)
        self.places[chosen] = torch.arange(len(chosen))
        self.places = self.places.to(device)
        self._weight = head.weight.detach()[chosen.to(device)]
        # Each drawn word counts as often as it stands for others.
        self._weigh = torch.zeros(len(chosen), device=device, dtype=head.weight.dtype)
        if len(drawn):
            self._weigh[len(known) :] = torch.log(torch.tensor(len(others) / len(drawn)))

    @property
    def weight(self) -> torch.Tensor:
        """Of the whole layer, which may be that of the input embeddings."""
        return self.head.weight

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of (…, hidden size) states: (…, words) in training mode, (…, vocabulary) else."""
        if not self.training:
            return self.head(hidden)
        return torch.nn.functional.linear(hidden, self._weight, self._weigh)

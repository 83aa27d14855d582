"""A smaller output layer for training, over the words of the data and a sample of the other words.

The output layer of a small model with a large vocabulary costs as much as all other layers together, and nearly all of its
words never occur in the data. They must stay improbable, so a fixed sample represents them all (importance sampling, as in
Jean et al. 2015, arXiv:1412.2007). Held-out losses and generation use the whole layer.
"""

from collections.abc import Iterable

import torch


class SampledHead(torch.nn.Module):
    """An output layer that computes some of its words in training mode, and all of them in evaluation mode.

    Args:
        head: The model's own output layer, which is not trained.
        words: Token ids that occur in the data.
        sample: Number of other words that represent all others.
        seed: Seed of the sample.

    Attributes:
        places: The column of each word in training, shape (vocabulary,); -1 for words that are not computed.
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
        # each drawn word counts as often as the words that it represents
        self._weigh = torch.zeros(len(chosen), device=device, dtype=head.weight.dtype)
        if len(drawn):
            self._weigh[len(known) :] = torch.log(torch.tensor(len(others) / len(drawn)))

    @property
    def weight(self) -> torch.Tensor:
        """The weight of the whole layer, which may be shared with the input embeddings."""
        return self.head.weight

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The logits of states of shape (…, hidden size): (…, words) in training mode, otherwise (…, vocabulary)."""
        if not self.training:
            return self.head(hidden)
        return torch.nn.functional.linear(hidden, self._weight, self._weigh)

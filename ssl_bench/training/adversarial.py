"""What two networks against each other share: the verdicts' loss, and a watch for their failing."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.progress import say
from ssl_bench.runtime import is_main_process
from ssl_bench.training.precision import full_precision


@full_precision
def verdict_loss(logits: Tensor, real: bool) -> Tensor:
    """Cross-entropy of a discriminator's verdicts, before the sigmoid, with `real` or not."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, real))


class CollapseWatch(nn.Module):
    """Notices an adversarial training that has failed, says so once, and lets it go on.

    The discriminator has won when its loss stays below WON; the outputs are all one when their
    deviation over the batch stays below FLAT of the truth's; both for PATIENCE steps on end. The
    counts are buffers, so a resumed run knows them.
    """

    WON, FLAT, PATIENCE, EVERY = 0.01, 0.02, 200, 100
    won: Tensor
    flat: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("won", torch.zeros((), dtype=torch.int64))
        self.register_buffer("flat", torch.zeros((), dtype=torch.int64))

    def forward(
        self, step: int, discriminator: Tensor | None, predicted: Tensor, truth: Tensor
    ) -> dict[str, Tensor]:
        """Returns `variation`, predicted over true deviation, and `collapsed`, 0 or 1."""
        deviation = [x.float().std(0).mean() for x in (predicted, truth)]
        variation = deviation[0] / deviation[1].clamp(min=1e-6)
        self.flat.copy_(torch.where(variation < self.FLAT, self.flat + 1, 0))
        if discriminator is not None:
            self.won.copy_(torch.where(discriminator < self.WON, self.won + 1, 0))
        if step % self.EVERY == self.EVERY - 1 and is_main_process():  # else no wait for a GPU
            self._report(int(self.won), int(self.flat))
        collapsed = torch.maximum(self.won, self.flat) >= self.PATIENCE
        return {"variation": variation, "collapsed": collapsed.float()}

    def _report(self, won: int, flat: int) -> None:
        """Once: in the first report after the patience has ended."""
        if self.PATIENCE <= won < self.PATIENCE + self.EVERY:
            say(
                f"warning: the discriminator's loss is below {self.WON} for {won} steps: it has "
                "won, and the generator learns nothing from it any more; the run goes on"
            )
        if self.PATIENCE <= flat < self.PATIENCE + self.EVERY:
            say(
                f"warning: for {flat} steps the outputs vary less than {self.FLAT:.0%} of what the "
                "images do: all of them are one picture; the run goes on"
            )

"""How views of one sample see each other in the U-Net: self-attention over all their tokens at once.

B samples, V views each, N tokens per view, C channels. Rows are sample-major, view-minor: row = b * V + v.
"""

from __future__ import annotations

from typing import Any

from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn


class ViewAttention(AttnProcessor2_0):
    """Scaled dot-product attention that folds views into the token axis where mixes_views is set.

    The number of views comes with each call (`cross_attention_kwargs={"views": V}`), so a U-Net holds no state that
    one call could leave behind for the next, and two threads may use it with different V. V = 1 is stock attention.
    """

    def __init__(self, mixes_views: bool):
        super().__init__()
        self.mixes_views = mixes_views

    def __call__(  # type: ignore[override]
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        views: int = 1,
    ) -> Tensor:
        """[B * V, N, C] -> [B * V, N, C]."""
        if not self.mixes_views or views == 1:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)
        rows, tokens, channels = hidden_states.shape
        folded = hidden_states.reshape(rows // views, views * tokens, channels)
        mixed = super().__call__(attn, folded, encoder_hidden_states, attention_mask)
        return mixed.reshape(rows, tokens, channels)


def install_view_attention(unet: nn.Module) -> None:
    """Give this UNet2DConditionModel's self-attentions (attn1) the folding, and its text attentions the plain form.

    Published checkpoints add no parameter for views, so the same weights run with any V.
    """
    for name, module in unet.named_modules():
        if isinstance(module, Attention):
            processor: Any = ViewAttention(mixes_views=name.endswith("attn1"))
            module.set_processor(processor)

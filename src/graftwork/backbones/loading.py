"""A source's files as a torch module, built by transformers."""

from collections.abc import Callable
from typing import Any

from graftwork.backbones.quiet import quiet
from graftwork.errors import ArtefactError, RequestError
from graftwork.sources import Source


def load_encoder(
    source: Source, needed: Callable[[str], bool] = lambda name: True, auto: str = "AutoModel"
) -> Any:
    """The source's torch module (float32, eval), its files verified first.

    needed: whether a parameter matters; ArtefactError where the weights lack one that does.
    auto: the class of transformers that chooses the module by its architecture.
    """
    source.verify()
    with quiet():
        import torch
        import transformers
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False, local_files_only=True)
        except (ValueError, KeyError, OSError) as error:
            raise RequestError(
                f"source {source.name!r} has architecture "
                f"{source.json('config.json').get('model_type')!r}, which the installed transformers cannot "
                "build; try: pip install -U transformers, or another source"
            ) from error
        try:
            module, report = getattr(transformers, auto).from_pretrained(
                source.folder,
                config=config,
                dtype=torch.float32,
                attn_implementation="eager",  # the plain formula is what every converter understands
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ArtefactError(
                f"source {source.name!r} cannot be loaded ({reason}); fetch it again"
            ) from error
    absent = sorted(name for name in report["missing_keys"] if needed(name))
    if absent:
        raise ArtefactError(
            f"the weights of {source.name!r} lack {len(absent)} tensors that its config.json asks for, first "
            f"{absent[0]!r}; weights and configuration belong to different models"
        )
    return module.eval()

"""Tiny audio encoders with random weights, saved as a model hub would hand them out, and made-up sounds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork import sounds
from graftwork.rows import Contents, Rows
from tiny import _save as save

RATE = 16_000
CHUNK = 2
"""Seconds that the tiny Whisper and spectrogram transformer hear at once."""

_WAVES: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
_LAYERS = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
_SEW = {"conv_dim": (8,) * 12 + (16,)}
_DATA2VEC = {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 5}

WAVES: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2": ("Wav2Vec2", {}),
    "wav2vec2 layer": ("Wav2Vec2", _LAYERS),  # as XLS-R and MMS
    "wav2vec2 adapter": ("Wav2Vec2", {"add_adapter": True, "adapter_attn_dim": 4}),
    "hubert": ("Hubert", {}),
    "wavlm": ("WavLM", {}),
    "data2vec": ("Data2VecAudio", _DATA2VEC),
    "sew": ("SEW", _SEW),
    "sew-d": ("SEWD", _SEW),
    "unispeech": ("UniSpeech", {}),
    "unispeech-sat": ("UniSpeechSat", {}),
    "conformer": ("Wav2Vec2Conformer", {}),
}
"""Encoders of samples: the beginning of their classes' names in transformers, and their settings."""


def waves(folder: Path, name: str, seed: int = 0, ending: str = "Model", **extractor: Any) -> Path:
    """An encoder of samples; `ending` chooses the class: Model, ForCTC, ForSequenceClassification."""
    import transformers

    start, settings = WAVES[name]
    config = getattr(transformers, f"{start}Config")(**{**_WAVES, **settings})
    save(folder, getattr(transformers, start + ending), config, seed)
    transformers.Wav2Vec2FeatureExtractor(**extractor).save_pretrained(folder)
    return folder


def ast(folder: Path, seed: int = 0) -> Path:
    """A spectrogram transformer that hears CHUNK seconds, saved with its classifier."""
    import transformers

    config = transformers.ASTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_length=100 * CHUNK, num_mel_bins=32, patch_size=8, frequency_stride=8, time_stride=8,
        initializer_range=0.2,
    )  # fmt: skip
    save(folder, transformers.ASTForAudioClassification, config, seed)
    transformers.ASTFeatureExtractor(max_length=100 * CHUNK, num_mel_bins=32).save_pretrained(folder)
    return folder


def whisper(folder: Path, seed: int = 0, ending: str = "ForConditionalGeneration") -> Path:
    """A Whisper that hears CHUNK seconds; its decoder is there too."""
    import transformers

    config = transformers.WhisperConfig(
        d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=20, max_source_positions=50 * CHUNK,
        vocab_size=50, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        init_std=0.2,
    )  # fmt: skip
    save(folder, getattr(transformers, f"Whisper{ending}"), config, seed)
    transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=CHUNK).save_pretrained(folder)
    return folder


SOURCES: dict[str, Callable[[Path], Path]] = {
    **{name: lambda folder, name=name: waves(folder, name) for name in WAVES},  # type: ignore[misc]
    "ast": ast,
    "whisper": whisper,
}


def sound(seconds: float, seed: int = 0) -> NDArray[np.float32]:
    """A few gliding tones in noise, at RATE, between -1 and 1."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    samples = 0.05 * rng.normal(size=len(time))
    for _ in range(3):
        pitch, glide, swell = rng.uniform(100, 3000), rng.uniform(-200, 200), rng.uniform(1, 6)
        samples += 0.25 * np.sin(2 * np.pi * (pitch + glide * time) * time) * np.sin(swell * time) ** 2
    return np.clip(samples, -1, 1).astype(np.float32)


def rows(*seconds: float) -> Rows:
    """Recordings of so many seconds each, as WAV without loss, so that tests know the very samples."""
    contents = [sounds.encode(sound(length, seed), RATE, exact=True) for seed, length in enumerate(seconds)]
    return Rows([f"recording {i}" for i in range(len(seconds))], {"audio": Contents("audio", contents)})

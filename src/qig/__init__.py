"""QIG: fine-grained post-training quantization of large vision-language models."""

__version__ = "0.1.0"

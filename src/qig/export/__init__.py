"""A run's quantized model as a compressed-tensors checkpoint that others load: written, verified, measured."""

"""The pass over the decoder blocks: streams, capture, and what happens to each block."""

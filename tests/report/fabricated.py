"""Finished runs written by hand into a store, as small as the contract allows."""

import json

import numpy as np
from safetensors.numpy import save_file


class Store:
    """A store under ``root``; ``run`` writes one finished run into it and returns its id."""

    def __init__(self, root):
        self.root = root

    def run(self, id, *, method="qig", scores=((1, 1, 0, 1),), types=None, nll=0.5, config=None, samples=None,
            quantized=True, tokens=(2, 2, 1, 3, 4), blocks=2, **record):
        """``scores``: one row of 0/1 a task; ``samples`` replaces the made-up evaluation lines."""
        if samples is None:
            samples = [line for task, row in enumerate(scores)
                       for line in task_samples(f"task{task}", row, types=types, nll=nll)]
        full = {"model": {"name": "tiny", "outliers": {"sigma": 0.0}}, "quant": {"name": "w3a16"}, "seed": 0,
                "sensitivity": {"kind": "qig", "granularity": "token", "nodes": 4}, "equalization": {"kind": "grid"},
                "rounding": {"kind": "nearest"}, "calibration": {"kind": "digitgrid", "samples": 8},
                "evaluation": {"name": "small", "limit": 4},
                "tracking": {"kind": "none", "api_key": "s3cr3t-value"}}
        for dotted, value in (config or {}).items():
            *groups, leaf = dotted.split(".")
            node = full
            for group in groups:
                node = node.setdefault(group, {})
            node[leaf] = value
        write_lines(self.root / "evaluation" / f"e{id}" / "samples.jsonl", samples)
        if quantized:
            self.sensitivity(f"q{id}", tokens, blocks)
        body = {
            "id": id, "method": method, "created": "2026-01-02T03:04:05+00:00", "config": full,
            "stages": {"calibration": {"samples": ["s0", "s1"], "sha256": "0" * 64} if quantized else None,
                       "quantized": f"q{id}" if quantized else None, "evaluation": f"e{id}"},
            "environment": {"python": "3.11.9", "platform": "Linux", "cpu": "x86", "device": "cpu",
                            "packages": {"torch": "2.15.0"}, "git": {"commit": "0" * 40, "dirty": False}},
            "timings": {"calibration": 1.5, "attribution": 2.0, "search": 3.0, "rounding": 0.5, "propagation": 0.5,
                        "quantization": 6.0, "evaluation": 4.0},
            "memory": {"peak_host_bytes": 512 * 2**20, "peak_device_bytes": None},
            "model_bytes": {"sixteen_bit": 3 * 2**20, "quantized": 2**20},
            "sites": [{"block": block, "site": site, "estimator": "qig", "fallback": None, "completeness": 0.001,
                       "nodes": 4, "exponents": [0.0, 0.5], "losses": [2.0, 1.0], "exponent": 0.5}
                      for block in range(blocks) for site in ("attn_in", "mlp_in")] if quantized else [],
            "metrics": metrics(samples), **record,
        }
        path = self.root / "runs" / id / "record.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(body))
        return id

    def sensitivity(self, key, tokens, blocks):
        """Two calibration samples with the same token kinds; weights rise along the tokens and sum to 1."""
        kinds = np.array(tokens, dtype=np.uint8)
        weight = np.arange(1, len(kinds) + 1, dtype=np.float32)
        weight = np.tile(weight / weight.sum(), 2)
        tensors = {f"block.{block}.{site}": weight.copy() for block in range(blocks) for site in ("attn_in", "mlp_in")}
        tensors["kinds"] = np.tile(kinds, 2)
        tensors["sample"] = np.repeat(np.arange(2, dtype=np.int32), len(kinds))
        path = self.root / "quantized" / key / "sensitivity.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path)


def task_samples(task, scores, *, types=None, nll=0.5):
    """Evaluation lines of one task: two questions an image; ``nll`` None, one number or one a sample."""
    nll = nll if isinstance(nll, (list, tuple)) else [nll] * len(scores)
    return [{"task": task, "sample": f"s{i}", "cluster": f"image{i // 2}", "type": types[i] if types else "all",
             "target": "a", "answer": "a" if score else "b", "score": float(score), "nll": nll[i], "empty": False}
            for i, score in enumerate(scores)]


def metrics(samples):
    """The metrics block of a record, from its evaluation lines."""
    result = {}
    for task in dict.fromkeys(line["task"] for line in samples):
        lines = [line for line in samples if line["task"] == task]
        known = [line["nll"] for line in lines if line["nll"] is not None]
        by_type = {kind: float(np.mean([line["score"] for line in lines if line["type"] == kind]))
                   for kind in sorted({line["type"] for line in lines})}
        result[task] = {"accuracy": float(np.mean([line["score"] for line in lines])), "by_type": by_type,
                        "nll": float(np.mean(known)) if known else None, "empty_share": 0.0, "n": len(lines)}
    return result


def write_lines(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in samples))

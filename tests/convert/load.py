"""Load published folders as a user does: ``python -m tests.convert.load OUT.npz FOLDER...`` saves each one's logits.

Runs with whichever transformers comes first on the path, 4.38 or 5, and knows nothing of this project.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import transformers

TOKENS = torch.arange(1, 65).reshape(2, 32)


def logits(folder: Path) -> np.ndarray:
    """Float32 logits (2, 32, vocabulary) of the model in ``folder``; every weight was found, none left over."""
    dtype = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
    options = {dtype: torch.float32, "attn_implementation": "eager"}
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    tokens = TOKENS % model.config.vocab_size
    with torch.no_grad():
        return model.eval()(tokens).logits.numpy()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    out, *folders = map(Path, sys.argv[1:])
    found = {folder.name: logits(folder) for folder in folders}
    for folder in folders:
        if (folder / "tokenizer.json").exists():
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            found[f"{folder.name}.ids"] = np.array(tokenizer("the 3rd, 14 & t5\n")["input_ids"])
    np.savez(out, version=np.array(transformers.__version__), **found)

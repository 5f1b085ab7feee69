"""An encoder to take away: a folder with weights, config and model card; its way to the hub."""

import json
import re
from pathlib import Path
from typing import Any

from ssl_bench.encoders.elsewhere import scheme_of
from ssl_bench.encoders.to_timm import CONFIG, WEIGHTS, save_timm, timm_equal
from ssl_bench.encoders.weights import save_encoder
from ssl_bench.errors import DataError, UsageError
from ssl_bench.evaluation.reference import Reference
from ssl_bench.files import write_atomically
from ssl_bench.trust.model_card import model_card

CARD = "README.md"


def save_pretrained(
    reference: Reference, workspace: Path, out: Path, license: str = "unknown"
) -> tuple[list[Path], str]:
    """Write an encoder to `out`: in timm's format, or in ours where timm has no such network.

    `license` is an identifier of the hub, such as `mit`; it stands in the card as it is given. The
    card has the table of the workspace's evaluations of these weights. Returns the files and why
    the folder is not for timm (empty: it is, which was checked). Raises UsageError for an encoder
    that only its own code or file builds, DataError for an `out` that holds something else.
    """
    if scheme_of(reference.spec.arch):
        raise UsageError(f"{reference.name} is not ssl-bench's to save: it came as it is")
    reference.check_weights()
    files = [out / name for name in (CONFIG, WEIGHTS, CARD)]
    strange = [p.name for p in out.glob("*") if p not in files] if out.exists() else []
    if strange:
        raise DataError(f"{out} holds {strange[0]}, which is not of this: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    encoder, spec, why = reference.encoder, reference.spec, ""
    try:
        save_timm(timm_equal(encoder, spec), encoder, spec, out, license)
    except UsageError as error:
        why = str(error)
        save_encoder(encoder, spec, out / WEIGHTS)
        ours: dict[str, Any] = {"library": "ssl-bench", "encoder": spec.plain()}
        write_atomically(out / CONFIG, json.dumps(ours, indent=2) + "\n")
    write_atomically(out / CARD, model_card(reference, workspace, license, why))
    return files, why


def check_target(target: str) -> str:
    """USER/NAME of `hf:USER/NAME`; UsageError for anything else."""
    found = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)", target)
    if found is None:
        raise UsageError(f"--push takes hf:USER/NAME, not '{target}'")
    return found[1]


def upload(folder: Path, target: str) -> str:
    """Upload a folder to `hf:USER/NAME`, which is made if need be; returns its address.

    Whatever token the machine has for the hub is used. What the network and the hub raise is an
    OSError.
    """
    from huggingface_hub import HfApi

    name = check_target(target)

    api = HfApi(library_name="ssl-bench")
    address = api.create_repo(name, exist_ok=True)
    api.upload_folder(repo_id=name, folder_path=folder, commit_message="Add encoder")
    return str(address)

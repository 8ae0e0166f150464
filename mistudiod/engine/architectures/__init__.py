"""One file for each kind of sparse autoencoder in training. All of them save the same canonical form, sae.py's."""

from mistudiod.engine.architectures.base import TrainingSae
from mistudiod.engine.architectures.batchtopk import BatchTopK
from mistudiod.engine.architectures.gated import Gated
from mistudiod.engine.architectures.jumprelu import JumpReLU
from mistudiod.engine.architectures.matryoshka import Matryoshka
from mistudiod.engine.architectures.standard import Standard
from mistudiod.engine.architectures.topk import TopK
from mistudiod.engine.architectures.transcoder import TopKTranscoder, Transcoder

ARCHITECTURES: dict[str, type[TrainingSae]] = {
    one.name: one for one in (BatchTopK, TopK, Matryoshka, JumpReLU, Standard, Gated, Transcoder, TopKTranscoder)
}

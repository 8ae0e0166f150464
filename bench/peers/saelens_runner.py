"""SAELens' own runner on a model and windows of tokens from disk: ``python saelens_runner.py ABOUT``; prints JSON.

``LanguageModelSAETrainingRunner`` reads the model by AutoModelForCausalLM and stops at the hook. Its norm estimate
over a thousand batches is left out, its logging and saving too; special tokens are left out as in ours.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sae_lens.config import LanguageModelSAERunnerConfig, LoggingConfig
from sae_lens.llm_sae_training_runner import LanguageModelSAETrainingRunner
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAEConfig
from sae_lens.training.activations_store import ActivationsStore
from timed import Timed

KINDS = {"topk": TopKTrainingSAEConfig, "batchtopk": BatchTopKTrainingSAEConfig}
IN_BUFFER = 64  # as in its tutorial


def main() -> None:
    about: dict[str, Any] = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    torch.set_num_threads(about["threads"])
    rows = np.fromfile(about["tokens"], about["dtype"]).reshape(-1, about["context"])[: about["windows"]]
    timed, give, raw = Timed(), ActivationsStore.__next__, ActivationsStore.get_raw_llm_batch

    def counted(store: ActivationsStore, *args: Any, **kwargs: Any) -> Any:
        found = raw(store, *args, **kwargs)
        timed.harvested += len(found[0])
        return found

    ActivationsStore.__next__ = lambda store: timed.of(lambda: give(store))  # type: ignore[method-assign]
    ActivationsStore.get_raw_llm_batch = counted  # type: ignore[method-assign]
    sae = KINDS[about["kind"]](d_in=about["d_in"], d_sae=about["width"], k=about["k"], dtype="float32", device="cpu")
    config = LanguageModelSAERunnerConfig(
        sae=sae,
        model_name=about["model"],
        model_class_name="AutoModelForCausalLM",
        model_from_pretrained_kwargs={"dtype": "float32"},
        hook_name=about["module"],
        context_size=about["context"],
        training_tokens=about["batch"] * about["steps"],
        train_batch_size_tokens=about["batch"],
        n_batches_in_buffer=IN_BUFFER,
        exclude_special_tokens=about["special_ids"],
        streaming=False,
        autocast=about["autocast"],
        autocast_lm=about["autocast"],
        logger=LoggingConfig(log_to_wandb=False),
        checkpoint_path=None,
        output_path=None,
        device="cpu",
        verbose=False,
    )
    data = Dataset.from_dict({"input_ids": rows.astype(np.int64)})
    LanguageModelSAETrainingRunner(config, override_dataset=data).run()
    print(json.dumps(timed.told(about["batch"], about["kept"])), file=answers, flush=True)


if __name__ == "__main__":
    main()

"""A tokenizer, and sessions of judges that the command line tells."""

import importlib.util
import json

import pytest
from helpers import Pool

import soup_judge

# Without PyTorch and transformers there is nothing to test here.
collect_ignore_glob = [] if importlib.util.find_spec("transformers") else ["test_*.py"]


@pytest.fixture
def tokenizer(tmp_path):
    """A folder with a tokenizer of words."""
    from tiny import WORDS, transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A </s>",
        pair="[CLS] $A [SEP] $B:1 </s>:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3), ("</s>", 4)],
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", eos_token="</s>", model_max_length=16
    )
    fast.save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.fixture
def opened(serving, tmp_path):
    """A session of a judge that the command line starts."""

    from tiny import Session, saved, torch

    from soup_judge.transformers import __main__ as command

    def open_(arguments, model, source, *, options=None, preprocessor="", change=lambda arrays: arrays, config=None):
        torch.manual_seed(0)
        arrays, text = saved(model, tmp_path / "model")
        pool = Pool(tmp_path, change(arrays))
        soup = pool.write("soup", change(arrays))
        client = serving(command.judge_of(command.parser().parse_args([str(each) for each in arguments])))
        dataset = soup_judge.Dataset("validation", str(source), options or {})
        text = json.dumps({**json.loads(text), **(config or {})})
        client.survey = client.open("s", pool.tensors, [dataset], config=text, preprocessor=preprocessor)
        client.load("s", 1, soup)
        return Session(client, pool, soup)

    return open_

"""What tiny T5s of models/ write where each token is the most probable one, in answers.json: by `generate` of transformers (4.57.6), one text at
a time.

A model of random numbers seldom writes the end that its configuration names. So the end is the token that ends most answers, and the
labels are the answers that are most frequent among those which it ends.

    python answers.py
"""

import collections
import json
import pathlib

import torch
from transformers import T5ForConditionalGeneration

HERE = pathlib.Path(__file__).parent
CASES = ["t5", "t5_gated", "t5_odd"]
TEXTS = 120
# Tokens of an answer before its end, at most.
LONGEST = 5


def write(model, text, tokens, end):
    """The answer to `text`: `tokens` tokens, fewer where it ends before."""
    ids = torch.tensor([text])
    mask = torch.ones_like(ids)
    with torch.no_grad():
        written = model.generate(ids, attention_mask=mask, do_sample=False, num_beams=1, max_new_tokens=tokens, eos_token_id=end, use_cache=False)
    return written[0, 1:].tolist()


def make(case):
    model = T5ForConditionalGeneration.from_pretrained(HERE / "models" / case).eval()
    vocabulary, classes = model.config.vocab_size, model.config.num_labels
    texts = [torch.randint(vocabulary, (int(n),)).tolist() for n in torch.randint(1, 12, (TEXTS,))]
    endless = [write(model, text, LONGEST + 1, vocabulary) for text in texts]

    def ended(end):
        until = [tuple(answer[: answer.index(end) + 1]) for answer in endless if end in answer]
        return collections.Counter(until).most_common(classes)

    end = max(range(vocabulary), key=lambda end: (len(ended(end)), sum(min(n, 9) * len(a) for a, n in ended(end))))
    labels = [list(answer) for answer, _ in ended(end)]
    assert len(labels) == classes
    longest = max(len(label) for label in labels)
    # One token more than a label has: what is longer is none.
    answers = [write(model, text, longest + 1, end) for text in texts]
    said = [labels.index(answer) if answer in labels else classes for answer in answers]
    print(f"{case}: end {end}, labels {labels}, answers {sorted(collections.Counter(said).items())}")
    return {"end": end, "labels": labels, "texts": texts, "answers": answers, "said": said}


if __name__ == "__main__":
    torch.manual_seed(20)
    found = {case: make(case) for case in CASES}
    (HERE / "answers.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")

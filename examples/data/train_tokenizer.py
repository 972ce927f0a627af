#!/usr/bin/env python3
"""Make tokenizer.json: a byte-level BPE of 4,096 tokens trained on the *.train.jsonl files beside this script.

    pip install tokenizers==0.23.3
    python3 train_tokenizer.py            # writes tokenizer.json, tokenizer_config.json

The files are read in name order and the trainer breaks ties by token id, so the same version of the
library writes the same bytes.
"""

import json
import pathlib

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent
VOCAB = 4096
# Ids 0, 1, 2, ... in this order. The first ends a document; the next two delimit turns of a dialogue, the
# rest serve fill-in-the-middle and padding.
SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|fim_prefix|>",
    "<|fim_suffix|>",
    "<|fim_middle|>",
    "<|pad|>",
]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def texts():
    for path in sorted(HERE.glob("*.train.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if "text" in row:
                    yield row["text"]
                else:
                    yield "\n".join(f"{m['role']}: {m['content']}" for m in row["messages"])


def main():
    tokenizer = Tokenizer(models.BPE())
    # Digits one by one, as SmolLM2 does, then GPT-2's splits.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    assert tokenizer.get_vocab_size() == VOCAB
    tokenizer.save(str(HERE / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<|endoftext|>",
        "pad_token": "<|pad|>",
        "unk_token": None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
        "chat_template": CHAT_TEMPLATE,
    }
    (HERE / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()

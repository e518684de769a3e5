#!/usr/bin/env python3
"""Golden token ids of sentencepiece_test.cc, by the original SentencePiece.

    pip install sentencepiece==0.2.3 protobuf==7.36.2 gguf==0.19.0 numpy==2.4.6
    python3 make_sentencepiece_golden.py ../../../LICENSE golden/sentencepiece.json
    python3 make_sentencepiece_golden.py ../../../LICENSE golden/sentencepiece.json gemma-3-270m-q4_k_m.gguf golden/gemma.json

The first writes small vocabularies, trained on the licence's text, as GGUF's fields, and the ids of hostile texts. With a model's file
the second golden file has the ids that its vocabulary gives for the same texts: a SentencePiece model is put together from the file's
pieces and scores.
"""
import io
import json
import random
import sys
import unicodedata

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as pb

SPACE = "\u2581"
TYPES = {pb.ModelProto.SentencePiece.NORMAL: 1, pb.ModelProto.SentencePiece.UNKNOWN: 2, pb.ModelProto.SentencePiece.CONTROL: 3,
         pb.ModelProto.SentencePiece.USER_DEFINED: 4, pb.ModelProto.SentencePiece.UNUSED: 5, pb.ModelProto.SentencePiece.BYTE: 6}
# name: what differs
MODELS = {"plain": {"byte_fallback": True, "add_dummy_prefix": False, "user_defined_symbols": ["\n", "\n\n", SPACE * 2, SPACE * 4, "<b>", "ab"]},
          "prefix": {"byte_fallback": True, "add_dummy_prefix": True, "user_defined_symbols": ["\t", "<b>"]},
          "unknown": {"byte_fallback": False, "add_dummy_prefix": False}}


def corpus(licence):
    letters = random.Random(5)
    mixed = "".join(letters.choice("aehilnorst   \n\t.,<>b/é日🙂\u0301") for _ in range(700))
    scripts = "".join(chr(c) for c in range(0x20, 0x2FF)) + "".join(
        chr(c) for c in range(0x300, 0x30000, 331) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co"))
    return {
        "empty": "", "space": " ", "spaces": "  ", "many spaces": " " * 100, "a word": "License", "begins with spaces": "   the Work",
        "ends with spaces": "the Work   ", "newlines": "\n\n\na\n\n\n\nb\r\n\r\n\tc\t\t\td\n", "tabs": "\t" * 50,
        "raw U+2581": "a\u2581b \u2581\u2581 \u2581c \u2581\u2581\u2581", "zero": "a\0b\0\0", "controls": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
        "marks": "e\u0301 \u0301\u0302 a\u0308\u0304 \u200d\u200b\ufeff\u00a0\u2003\u3000x", "emoji": "👩‍👩‍👧‍👦 🇨🇭🙂 1️⃣ \U0010ffff\ufffd",
        "text of special tokens": "<bos><eos><unk><s></s><pad><start_of_turn>user\nhi<end_of_turn>\n<0x41><0x0A>", "tags": "<b>bold</b><<b>>< b><B><html><h1>x</h1>",
        "user symbols": "ababab abba cabdab", "repeats": "a" * 300 + "e" * 301 + "." * 77, "digits": "0123456789 3.14159 1,000,000 -1e-9",
        "code": "def f(x):\n    if x  :\n        return {'a': [1, 2]}\n\t\treturn None  # ok\n", "html": "<table>\n  <tr><td>a</td></tr>\n</table>",
        "languages": "Grüße aus Zürich. Ça va? Привет, мир! 你好，世界。こんにちは 안녕하세요 שלום مرحبا नमस्ते สวัสดี", "scripts": scripts, "mixed": mixed,
        "licence": licence[:2500],
    }


def small_model(licence_path, options):
    out = io.BytesIO()
    with open(licence_path, encoding="utf-8") as f:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(f.read().split("\n")), model_writer=out, model_type="bpe", vocab_size=520, character_coverage=1.0,
            normalization_rule_name="identity", remove_extra_whitespaces=False, pad_id=3, num_threads=1, minloglevel=2, **options)
    model = pb.ModelProto.FromString(out.getvalue())
    normal = [p for p in model.pieces if p.type == p.NORMAL]
    for piece in normal[3:60:9]:  # pieces that may arise in merging but not stay
        piece.type = piece.UNUSED
    for piece in normal[60:90]:  # and some that merge in the order they stand
        piece.score = normal[60].score
    return model


def fields_of(model):
    """As GGUF converters write them: user-defined pieces with spaces."""
    return {"tokens": [p.piece.replace(SPACE, " ") if p.type == p.USER_DEFINED else p.piece for p in model.pieces],
            "scores": [p.score for p in model.pieces], "types": [TYPES[p.type] for p in model.pieces],
            "space_prefix": model.normalizer_spec.add_dummy_prefix}


def processor_of(path):
    """Of a GGUF file's vocabulary."""
    import gguf
    field = {name: f.contents() for name, f in gguf.GGUFReader(path).fields.items() if name.startswith("tokenizer.")}
    model, kinds = pb.ModelProto(), {v: k for k, v in TYPES.items()}
    for piece, score, kind in zip(*(field["tokenizer.ggml." + key] for key in ("tokens", "scores", "token_type"))):
        kind = kinds[2] if piece == "<unk>" else kinds[kind]  # some converters call it a control token
        model.pieces.add(piece=piece.replace(" ", SPACE) if kind == kinds[4] else piece, score=score, type=kind)
    model.trainer_spec.model_type = pb.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = len(model.pieces)
    for name in ("unk", "bos", "eos", "pad"):
        key = {"unk": "unknown", "pad": "padding"}.get(name, name)
        setattr(model.trainer_spec, name + "_id", field[f"tokenizer.ggml.{key}_token_id"])
        setattr(model.trainer_spec, name + "_piece", field["tokenizer.ggml.tokens"][field[f"tokenizer.ggml.{key}_token_id"]])
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = field["tokenizer.ggml.add_space_prefix"]
    model.normalizer_spec.remove_extra_whitespaces = False
    return processor(model)


def processor(model):
    return spm.SentencePieceProcessor(model_proto=model.SerializeToString())


def lines(texts):
    return ",\n".join(json.dumps(text, ensure_ascii=True, separators=(",", ":")) for text in texts)


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        texts = corpus(f.read())
    models = {name: small_model(sys.argv[1], options) for name, options in MODELS.items()}
    processors = {name: processor(model) for name, model in models.items()}
    cases = [{"name": name, "text": text, **{m: p.encode(text) for m, p in processors.items()}} for name, text in texts.items()]
    vocabularies = lines({"name": name, **fields_of(model)} for name, model in models.items())
    with open(sys.argv[2], "w", encoding="utf-8") as f:
        f.write(f'{{"vocabularies": [\n{vocabularies}\n],\n"cases": [\n{lines(cases)}\n]}}\n')
    if len(sys.argv) > 3:
        real = processor_of(sys.argv[3])
        with open(sys.argv[4], "w", encoding="utf-8") as f:
            f.write("[\n" + lines({"name": name, "ids": real.encode(text)} for name, text in texts.items()) + "\n]\n")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Golden token ids of tokenizer_test.cc, by a byte-level BPE of its own: nothing here comes from a tokenizer library.

    pip install regex==2026.11.15
    python3 make_tokenizer_golden.py SmolLM2-135M-Instruct.Q4_1.gguf golden/

writes golden/corpus.json (hostile texts and their ids) and golden/sweep.json (every assigned character of every plane, as a digest
a block of 256). Needs Python 3.11 (its unicodedata, Unicode 14, says which characters are assigned: classes of those do not change).

The vocabulary is the model's, which lacks eight bytes that occur in UTF-8 (0x04 0x06 0x13 0x14 0x16 0x1D 0xF1 0xF2); like the
model's own tokenizer this one leaves such bytes out, before merging. For the pre-tokenizers of other model families the same vocabulary is
used: what they differ in is where words end.
"""
import hashlib
import json
import struct
import sys
import unicodedata

import regex

SPACE, NOT_SPACE = r"\p{White_Space}", r"\P{White_Space}"
TAIL = rf"{SPACE}+(?!{NOT_SPACE})|{SPACE}+"
GPT2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?[^{SPACE}\p{{L}}\p{{N}}]+|{TAIL}"
BIG = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}COUNT| ?[^" + SPACE + r"\p{L}\p{N}]+[\r\n]*|" + SPACE +
       r"*[\r\n]+|" + TAIL)
# name of tokenizer.ggml.pre: the expressions by which text is cut, one after the other
PRE = {"smollm": [r"\p{N}", GPT2], "gpt-2": [GPT2], "llama-bpe": [BIG.replace("COUNT", "{1,3}")], "qwen2": [BIG.replace("COUNT", "")]}


def read_metadata(path):
    """Key-value pairs of a GGUF file of version 3."""
    with open(path, "rb") as file:
        def take(fmt):
            return struct.unpack("<" + fmt, file.read(struct.calcsize("<" + fmt)))

        def text():
            return file.read(take("Q")[0]).decode()

        def value(kind):
            if kind == 8:
                return text()
            if kind == 9:
                inner, count = take("IQ")
                return [value(inner) for _ in range(count)]
            return take("BbHhIif?  Qqd"[kind])[0]

        magic, version, _, pairs = take("4sIQQ")
        assert magic == b"GGUF" and version == 3
        return {text(): value(take("I")[0]) for _ in range(pairs)}


def byte_alphabet():
    printable = [b for b in range(256) if 0x21 <= b <= 0x7E or 0xA1 <= b <= 0xAC or 0xAE <= b]
    table = {b: chr(b) for b in printable}
    for n, b in enumerate(b for b in range(256) if b not in table):
        table[b] = chr(256 + n)
    return table


class Tokenizer:
    def __init__(self, metadata, pre):
        tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
        self.ids = {t: i for i, (t, k) in enumerate(zip(tokens, kinds)) if k == 1}
        self.special = {t: i for i, (t, k) in enumerate(zip(tokens, kinds)) if k == 3}
        self.ranks = {tuple(m.split(" ")): r for r, m in enumerate(metadata["tokenizer.ggml.merges"])}
        self.alphabet = byte_alphabet()
        self.cuts = [regex.compile(p) for p in PRE[pre]]
        self.nfc, self.whole_words = pre == "qwen2", pre == "llama-bpe"
        longest_first = sorted(self.special, key=len, reverse=True)
        self.special_cut = regex.compile("(" + "|".join(map(regex.escape, longest_first)) + ")")
        self.cache = {}

    def word(self, word):
        if word in self.cache:
            return self.cache[word]
        symbols = [self.alphabet[b] for b in word.encode()]
        if self.whole_words and "".join(symbols) in self.ids:
            return [self.ids["".join(symbols)]]
        symbols = [s for s in symbols if s in self.ids]
        while len(symbols) > 1:
            best = min(zip(symbols, symbols[1:]), key=lambda pair: self.ranks.get(pair, 1 << 60))
            if best not in self.ranks:
                break
            merged, i = [], 0
            while i < len(symbols):
                if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == best:
                    merged.append(symbols[i] + symbols[i + 1])
                    i += 2
                else:
                    merged.append(symbols[i])
                    i += 1
            symbols = merged
        self.cache[word] = [self.ids[s] for s in symbols]
        return self.cache[word]

    def plain(self, text):
        pieces = [unicodedata.normalize("NFC", text) if self.nfc else text]
        for cut in self.cuts:
            pieces = [part for piece in pieces for part in self.isolate(cut, piece)]
        return [i for piece in pieces for i in self.word(piece)]

    @staticmethod
    def isolate(cut, piece):
        at = 0
        for match in cut.finditer(piece):
            if match.start() > at:
                yield piece[at:match.start()]
            yield match.group()
            at = match.end()
        if at < len(piece):
            yield piece[at:]

    def encode(self, text, parse_special):
        if not parse_special:
            return self.plain(text)
        ids = []
        for i, part in enumerate(self.special_cut.split(text)):
            ids += [self.special[part]] if i % 2 else self.plain(part)
        return ids


def corpus():
    spaces = "".join(map(chr, [9, 10, 11, 12, 13, 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]))
    not_spaces = "\x1c\x1d\x1e\x1f\u180e\u200b\u200c\u200d\u2060\ufeff"
    yield "empty", ""
    yield "plain", "Hello, world! It's 2024; we've 1,234.5678 reasons, don't they'll say 'tis the season I'D say."
    yield "contractions", "'s 't 're 've 'm 'll 'd 'S 'T 'RE 'LL x's'll'd '' ' 'z ’s don’t 'ſ"
    yield "digits", "7 77 777 7777 " + "1234567890" * 40 + " 0x1F 3.14e-10 ١٢٣٤ 一二三 ½ ² Ⅷ ⅔ ௧௨ 𝟘𝟙 1a2b3c"
    yield "every white space", "".join(f"a{c}b {c}c{c} d{c}{c}e" for c in spaces)
    yield "almost white space", "".join(f"a{c}b {c}c{c} d{c}{c}e" for c in not_spaces)
    for n in range(1, 9):
        yield f"{n} spaces", "x" + " " * n + "y" + " " * n + "1" + " " * n + "!" + " " * n
    yield "mixed runs", "a \t b\t\tc \n\n d\r\n\r\ne \r f \u3000 g  \n  h\n \n\n\ti \u00a0\u00a0 j\n"
    yield "only space", " \n\t \n"
    yield "line ends", "one\r\ntwo\rthree\n\rfour\n\n\nfive\r\n\r\n  six  \r\n"
    yield "long spaces", " " * 1000 + "x" + "\t" * 500 + "\n" * 500 + " y"
    yield "emoji", "👍 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ☃️ 1️⃣ 🧑🏿‍🚀 ❤️‍🔥 \U0001fae0 text👍text 👍👍👍"
    yield "combining", "e\u0301 é o\u0308\u0323 ộ Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿̋ͥͥ̂ͣ̐́́͜͞ क्षि नि 각 가 \u1100\u1161\u11a8"
    yield "scripts", "Ελληνικά Кириллица עברית العربية हिन्दी ไทย ລາວ ქართული հայերեն አማርኛ 日本語カタカナひらがな 한국어 中文 粵語 Tiếng Việt ᚠᚢᚦ 𐍈𐌰𐌹 𒀀𒁀 𓀀𓁀 𝒜𝔅ℂ"
    yield "mixed scripts", "abcабвαβγ漢字かな가나123١٢٣_-=+абв!?漢1字a2б3"
    yield "right to left", "\u202bאבג\u202c \u200fعربي\u200e (123) \u2067x\u2069"
    yield "long word", "a" * 3000
    yield "long nonsense", "".join(chr(97 + (i * i * 7 + i // 3) % 26) for i in range(2500))
    yield "long compound", "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 8
    yield "long hanzi", "漢字假名" * 300
    yield "long punctuation", "!" * 777 + "-" * 500 + "=-" * 200 + "\\/" * 100
    yield "planes", "".join(chr(p << 16 | 0x1234) + " " + chr((p << 16) + 0x1F600 - 0x10000 if p == 1 else p << 16 | 0xABCD) for p in range(1, 17))
    yield "noncharacters", "\ufdd0 \ufdef \ufffe \uffff \U0001fffe \U0010ffff \ufffd"
    yield "private use", "\ue000\uf8ff \U000f0000 \U0010fffd"
    yield "controls", "".join(map(chr, range(32))) + "\x7f" + "".join(map(chr, range(0x80, 0xA0)))
    yield "dropped bytes between letters", "a\x04b th\x06e \x13 \x14\x16in\x1dg \U00040000x\U00080000"
    yield "look-alikes", "<|im_start|>user\n<|im_end|><|endoftext|> <|im_start |> <| im_end|> <|im_end|<|im_end|>> <|IM_END|> ＜|im_end|＞ <|im_end<|im_start|>"
    yield "specials", "<|im_start|>system\nYou are x<|im_end|>\n<|im_start|>user\n  hi  <|im_end|>  <repo_name>a/b<file_sep>c <jupyter_code>1<empty_output>"
    yield "specials touching", "<|im_end|><|im_end|>x<|im_end|> x <|im_end|>1<|im_end|>\n"
    yield "specials and space", " <|im_end|>  <|im_start|>   a<|im_end|>\t"
    yield "alphabet as text", "Ġthe ĊĊ Ġ ÃĤ Ġ the"
    yield "python", 'def f(x: int = 0x10) -> str:\n    """Doc."""\n    return f"{x!r:>{10}}" if x is not None else \'\'\n\n\nclass A(B):\n\t@property\n\tdef y(self): return self._y  # noqa: E501\n'
    yield "c++", '#include <vector>\ntemplate <typename T>\nstd::vector<T> f(const T* p, size_t n) { return {p, p + n}; }  // 100\n'
    yield "html", '<!DOCTYPE html>\n<a href="https://example.com/?q=1&amp;r=%20">x</a>\n<!-- <|im_end|> -->'
    yield "json", '{"a": [1, 2.5e10, null, true], "b": {"c": "\\u00e9\\n"}}'
    yield "url", "https://user:pw@example.com:8080/path/to/file.tar.gz?x=1&y=%E2%82%AC#frag foo@bar.example"
    yield "markdown", "# Title\n\n* item\n  1. sub `code` **bold**\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```sh\n$ ls -la | grep '^d'\n```\n"
    yield "math", "∀ε>0 ∃δ>0: |x−a|<δ ⇒ |f(x)−f(a)|<ε; ∑ᵢ₌₁ⁿ i² = n(n+1)(2n+1)/6 ≈ n³/3"


def assigned():
    return [c for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]


def sweep_text(code_points):
    return "".join(f" a{c}b{c}{c} 7{c}\n" for c in map(chr, code_points))


def ranges(code_points):
    out = []
    for c in code_points:
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def main():
    metadata = read_metadata(sys.argv[1])
    tokenizers = {pre: Tokenizer(metadata, pre) for pre in PRE}
    cases = []
    for name, text in corpus():
        case = {"name": name, "text": text}
        for pre, tokenizer in tokenizers.items():
            case[pre] = tokenizer.encode(text, False)
        special = tokenizers["smollm"].encode(text, True)
        if special != case["smollm"]:
            case["special"] = special
        for pre in list(tokenizers)[1:]:  # said once where it is the same
            if case[pre] == case["smollm"]:
                del case[pre]
        cases.append(case)
    with open(sys.argv[2] + "/corpus.json", "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")

    code_points, blocks = assigned(), {}
    for c in code_points:
        blocks.setdefault(c >> 8, []).append(c)
    digests = {}
    for pre in ("smollm", "llama-bpe", "qwen2"):
        tokenizer = tokenizers[pre]
        digests[pre] = []
        for members in blocks.values():
            ids = tokenizer.encode(sweep_text(members), False)
            digests[pre].append(hashlib.sha256(struct.pack(f"<{len(ids)}I", *ids)).hexdigest()[:8])
        tokenizer.cache.clear()
    with open(sys.argv[2] + "/sweep.json", "w") as file:
        parts = {"ranges": ranges(code_points), **{pre: " ".join(d) for pre, d in digests.items()}}
        file.write("{\n" + ",\n".join(f"{json.dumps(k)}:{json.dumps(v, separators=(',', ':'))}" for k, v in parts.items()) + "\n}\n")


if __name__ == "__main__":
    main()

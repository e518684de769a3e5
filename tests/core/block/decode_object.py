#!/usr/bin/env python3
"""A second reader of object format v1, written from core/block/README.md alone. Standard library only.

  decode_object.py --check FOLDER    check every test vector of the folder (hashes, keys, checksums, decoded values)
  decode_object.py FILE.json         print what an object file holds
"""
import hashlib
import json
import math
import pathlib
import struct
import sys

M64 = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


# ---- XXH3-64 (seed 0), for inputs of 17 bytes and more ----------------------------------------------------------------------
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248e"
    "e03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d"
    "8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc"
    "8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e")
P32 = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
P64 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)


def u64(b, at):
    return int.from_bytes(b[at:at + 8], "little")


def fold(a, b):
    p = a * b
    return (p & M64) ^ (p >> 64)


def avalanche(h):
    h ^= h >> 37
    h = h * 0x165667919E3779F9 & M64
    return h ^ h >> 32


def xxh3(data):
    n = len(data)
    mix = lambda at, key: fold(u64(data, at) ^ u64(SECRET, key), u64(data, at + 8) ^ u64(SECRET, key + 8))
    acc = n * P64[0] & M64
    if n <= 128:
        for i in range(((n - 1) // 32), -1, -1):
            acc += mix(16 * i, 32 * i) + mix(n - 16 * (i + 1), 32 * i + 16)
        return avalanche(acc & M64)
    if n <= 240:
        acc = avalanche((acc + sum(mix(16 * i, 16 * i) for i in range(8))) & M64)
        acc += sum(mix(16 * i, 16 * (i - 8) + 3) for i in range(8, n // 16)) + mix(n - 16, 136 - 17)
        return avalanche(acc & M64)
    lanes = [P32[2], P64[0], P64[1], P64[2], P64[3], P32[1], P64[4], P32[0]]

    def stripe(at, key):
        for i in range(8):
            value = u64(data, at + 8 * i)
            mixed = value ^ u64(SECRET, key + 8 * i)
            lanes[i ^ 1] = lanes[i ^ 1] + value & M64
            lanes[i] = lanes[i] + (mixed & 0xFFFFFFFF) * (mixed >> 32) & M64

    blocks = (n - 1) // 1024
    for block in range(blocks):
        for s in range(16):
            stripe(1024 * block + 64 * s, 8 * s)
        for i in range(8):
            lanes[i] = (lanes[i] ^ lanes[i] >> 47 ^ u64(SECRET, 128 + 8 * i)) * P32[0] & M64
    for s in range((n - 1 - 1024 * blocks) // 64):
        stripe(1024 * blocks + 64 * s, 8 * s)
    stripe(n - 64, 128 - 7)
    acc += sum(fold(lanes[2 * i] ^ u64(SECRET, 11 + 16 * i), lanes[2 * i + 1] ^ u64(SECRET, 19 + 16 * i)) for i in range(4))
    return avalanche(acc & M64)


# ---- floats -----------------------------------------------------------------------------------------------------------------
def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def bf16(bits):
    return struct.unpack("<f", struct.pack("<I", bits << 16))[0]


DTYPES = {0: (2, lambda b: bf16(int.from_bytes(b, "little"))),
          1: (2, lambda b: struct.unpack("<e", b)[0]),
          2: (4, lambda b: struct.unpack("<f", b)[0])}


# ---- codebook 1 -------------------------------------------------------------------------------------------------------------
class Codebook:
    cache = {}

    def __new__(cls, d, b):
        if (d, b) not in cls.cache:
            cls.cache[d, b] = super().__new__(cls)
        return cls.cache[d, b]

    def __init__(self, d, b):
        if hasattr(self, "cut"):
            return
        self.d, self.b = d, b
        self.total = self.area(1.0)
        n = 1 << (b - 1)
        # Lloyd's iteration, sped up by Newton's on its tridiagonal system once it is near.
        c = [min(4.0 * (k + 0.5) / n, 0.9 * math.sqrt(d)) / math.sqrt(d) for k in range(n)]
        for _ in range(60):
            c = self.cells(c)[2]
        for _ in range(40):
            step = self.newton(c)
            if any(not (x < y) for x, y in zip([0.0] + step, step + [1.0])):
                step = self.cells(c)[2]
            c = step
        _, mass, mean = self.cells(c)
        self.cut, self.mse = {}, {}
        for kept in range(1, b + 1):
            m = 1 << (b - kept)
            groups = [range(k, k + m) for k in range(0, n, m)]
            p = [sum(mass[i] for i in g) for g in groups]
            centroid = [sum(mass[i] * mean[i] for i in g) / q * math.sqrt(d) for g, q in zip(groups, p)]
            self.cut[kept] = [f32(x) for x in centroid]
            self.mse[kept] = 1 - 2 * sum(q * x * x for q, x in zip(p, centroid))

    def area(self, x):
        cosine = math.sqrt(1 - x * x)
        total, power = math.asin(x), cosine
        for n in range(2, self.d - 1, 2):
            total = (power * x + (n - 1) * total) / n
            power *= cosine * cosine
        return total

    def moment(self, x):
        return (1 - (1 - x * x)**((self.d - 1) / 2)) / (self.d - 1)

    def cells(self, c):
        edges = [0.0] + [(x + y) / 2 for x, y in zip(c, c[1:])] + [1.0]
        area, moment = [self.area(x) for x in edges], [self.moment(x) for x in edges]
        mass = [y - x for x, y in zip(area, area[1:])]
        mean = [(y - x) / m for x, y, m in zip(moment, moment[1:], mass)]
        return edges, [m / (2 * self.total) for m in mass], mean

    def newton(self, c):
        edges, mass, mean = self.cells(c)
        density = lambda x: (1 - x * x)**((self.d - 3) / 2) / (2 * self.total)
        n = len(c)
        lower = [0.5 * density(edges[k]) * (mean[k] - edges[k]) / mass[k] if k else 0.0 for k in range(n)]
        upper = [0.5 * density(edges[k + 1]) * (edges[k + 1] - mean[k]) / mass[k] if k + 1 < n else 0.0 for k in range(n)]
        up, right = [0.0] * n, [0.0] * n
        for k in range(n):
            pivot = 1 - lower[k] - upper[k] + (lower[k] * up[k - 1] if k else 0.0)
            up[k] = -upper[k] / pivot
            right[k] = (c[k] - mean[k] + (lower[k] * right[k - 1] if k else 0.0)) / pivot
        delta, out = 0.0, [0.0] * n
        for k in reversed(range(n)):
            delta = right[k] - up[k] * delta
            out[k] = c[k] - delta
        return out

    def value(self, code, kept):
        magnitude = self.cut[kept][code & ((1 << (kept - 1)) - 1)]
        return -magnitude if code >> (kept - 1) else magnitude


# ---- rotation 1 -------------------------------------------------------------------------------------------------------------
def splitmix(z):
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & M64
    z = (z ^ z >> 27) * 0x94D049BB133111EB & M64
    return z ^ z >> 31


def signs(d, seed, round_):
    base = splitmix(seed + GOLDEN & M64)
    word = [splitmix(base + (16 * round_ + w + 1) * GOLDEN & M64) for w in range((d + 63) // 64)]
    return [-1.0 if word[i // 64] >> (i % 64) & 1 else 1.0 for i in range(d)]


def mix_matrix(x):
    d = len(x)
    p = d & -d
    q = d // p
    x, h = list(x), 1
    while h < p:
        for i in range(d):
            if not i & h:
                x[i], x[i + h] = x[i] + x[i + h], x[i] - x[i + h]
        h *= 2
    if q > 1:
        angle = lambda j, k: 2 * math.pi * (j * k % q) / q
        a = [[f32((math.cos(angle(j, k)) + math.sin(angle(j, k))) / math.sqrt(q)) for k in range(q)] for j in range(q)]
        x = [sum(a[i // p][k] * x[k * p + i % p] for k in range(q)) for i in range(d)]
    return [v / math.sqrt(p) for v in x]


def rotate(x, seed):
    for round_ in (0, 1):
        x = mix_matrix([v * s for v, s in zip(x, signs(len(x), seed, round_))])
    return x


def rotate_back(y, seed):
    for round_ in (1, 0):
        y = [v * s for v, s in zip(mix_matrix(y), signs(len(y), seed, round_))]
    return y


# ---- projection 1 -----------------------------------------------------------------------------------------------------------
def projection(d, seed, cache={}):
    if (d, seed) not in cache:
        base = splitmix(seed + 2 * GOLDEN & M64)
        u = lambda i: ((splitmix(base + (i + 1) * GOLDEN & M64) >> 11) + 1) / (1 << 53)
        entries = []
        for i in range(0, d * d, 2):
            radius, angle = math.sqrt(-2 * math.log(u(i))), 2 * math.pi * u(i + 1)
            entries += [f32(radius * math.cos(angle)), f32(radius * math.sin(angle))]
        cache[d, seed] = [entries[j * d:(j + 1) * d] for j in range(d)]
    return cache[d, seed]


def e4m3(code):
    e, m = code >> 3 & 15, code & 7
    magnitude = (1 + m / 8) * 2.0**(e - 7) if e else m / 512
    return -magnitude if code >> 7 else magnitude


# ---- layout and header ------------------------------------------------------------------------------------------------------
class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if self.at + n > len(self.data):
            raise ValueError(f"ends early at {self.at}")
        self.at += n
        return self.data[self.at - n:self.at]

    def get(self, form):
        values = struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))
        return values[0] if len(values) == 1 else values


def parse_layout(data):
    r = Reader(data)
    if r.take(4) != b"QKVL" or r.get("H") != 1:
        raise ValueError("no layout of version 1")
    layout = {"dtype": r.get("BB")[0]}
    layout["rotation"], layout["codebook"], layout["block_tokens"], layout["seed"] = r.get("HHIQ")
    layout["model"] = r.take(32)
    layout["rope"] = r.take(r.get("I"))
    layout["layers"] = [[dict(zip(("kind", "heads", "d", "window"), r.get("IIII"))) for _ in range(r.get("I"))] for _ in range(r.get("I"))]
    if r.at != len(data):
        raise ValueError("layout is too long")
    return layout


def kept_bits(bits, level):
    return bits if level == 3 else min(bits, 2 + level)


def has_level(bits, level):
    return bits > 0 and (level == 0 or kept_bits(bits, level) > kept_bits(bits, level - 1))


class Object:
    def __init__(self, data, layout):
        self.data, self.layout = data, layout
        r = Reader(data)
        if r.take(4) != b"QKV1" or r.get("HH") != (1, 0):
            raise ValueError("no object of version 1")
        self.header_bytes, tokens, self.sinks, self.index = r.get("IIII")
        self.part = r.get("IIII")
        self.rotation, self.codebook, self.levels, self.seed, checksums, _ = r.get("HHIQII")
        self.fingerprint, self.parent, self.key, self.profile = (r.take(32) for _ in range(4))
        count = self.part[1] - self.part[0]
        self.codecs = [r.get("BBBB")[:3] for _ in range(count)]
        r.take(-r.at % 8)
        self.extents = [r.get("QQ") for _ in range(self.levels)]
        self.errors = [[r.get("ff") for _ in range(count)] for _ in range(self.levels)]
        self.checksums = [r.get("Q") for _ in range(checksums)]
        if self.header_bytes != (r.at + 8 + 15) // 16 * 16 or tokens != 64:
            raise ValueError("header size")
        if u64(data, self.header_bytes - 8) != xxh3(data[:self.header_bytes - 8]):
            raise ValueError("header checksum")
        self.place()

    # Walks over the bytes as README's "Levels, slices" tells, checking checksums; slices[level, layer, head] = bytes by part.
    def place(self):
        at, checksum, self.slices, self.raw_sinks = self.header_bytes, iter(self.checksums), {}, {}

        def piece(n):
            nonlocal at
            n = (n + 15) // 16 * 16
            data = self.data[at:at + n]
            at += n
            if n and xxh3(data) != next(checksum):
                raise ValueError(f"checksum of the {n} bytes before {at}")
            return data

        for level in range(self.levels):
            if (self.extents[level][0], at) != (at, self.extents[level][0]):
                raise ValueError("level offset")
            for i, (codec, k_bits, v_bits) in enumerate(self.codecs):
                streams = self.layout["layers"][self.part[0] + i]
                dims = [s["d"] for s in streams]
                heads = range(max(0, min(self.part[3], streams[0]["heads"]) - self.part[2]))
                size = DTYPES[self.layout["dtype"]][0]
                if level == 0:
                    self.raw_sinks[i] = piece(len(heads) * self.sinks * sum(dims) * size if codec != 0 else 0)
                for h in heads:
                    if codec == 0:
                        self.slices[level, i, h] = piece(64 * sum(dims) * size if level == 0 else 0)
                        continue
                    if codec != 2:
                        sizes = self.flat_sizes(codec, dims, (k_bits, v_bits)) if level == 0 else {}
                    else:
                        sizes = self.sizes(level, dims, k_bits, v_bits)
                    r = Reader(piece(sum(sizes.values())))
                    self.slices[level, i, h] = {name: r.take(n) for name, n in sizes.items()}
            if at != sum(self.extents[level]):
                raise ValueError("level length")
        if at != len(self.data) or next(checksum, None) is not None:
            raise ValueError("object length")

    @staticmethod
    def flat_sizes(codec, dims, bits):
        sizes = {}
        for name, d, b in zip("kv", dims, bits):
            sizes[name + "_scales"] = 128
            if codec == 3:
                sizes[name + "_rests"] = 128
            sizes[name + "_codes"] = 64 * d if codec == 1 else 16 * d + 8 * d * (b - 2)
        return sizes

    @staticmethod
    def sizes(level, dims, k_bits, v_bits):
        k, v = has_level(k_bits, level), has_level(v_bits, level)
        if level == 0:
            return {"mean": dims[0], "scalars": 16, "k_scales": 128, "k_planes": 16 * dims[0],
                    "v_scales": 64 if v else 0, "v_planes": 16 * dims[1] if v else 0}
        new = lambda bits: kept_bits(bits, level) - kept_bits(bits, level - 1)
        return {"k_scales": 64 * k, "k_planes": 8 * dims[0] * new(k_bits) if k else 0,
                "v_scales": 64 if v and level == 3 else 0, "v_planes": 8 * dims[1] * new(v_bits) if v else 0}

    def planes(self, layer, head, stream, levels, d):
        out = []
        for level in range(levels):
            data = self.slices[level, layer, head][stream + "_planes"]
            width = 16 * d if level == 0 else 8 * d
            out += [data[i:i + width] for i in range(0, len(data), width)]
        return out

    def decode(self, layer, head, token, levels):
        """K and V (None for a latent) of one token after `levels` levels."""
        codec, k_bits, v_bits = self.codecs[layer]
        dims = [s["d"] for s in self.layout["layers"][self.part[0] + layer]]
        size, number = DTYPES[self.layout["dtype"]]
        row = lambda data, at, d: [number(data[at + i * size:at + (i + 1) * size]) for i in range(d)]
        if codec == 0 or token < self.sinks:
            tokens = 64 if codec == 0 else self.sinks
            data = self.slices[0, layer, head] if codec == 0 else self.raw_sinks[layer]
            at = 0 if codec == 0 else head * self.sinks * sum(dims) * size
            out = []
            for d in dims:
                out.append(row(data, at + token * d * size, d))
                at += tokens * d * size
            return out + [None] * (2 - len(out))
        if codec != 2:
            row = self.fp8_row if codec == 1 else self.prod_row
            rows = [row(self.slices[0, layer, head], name, token, d, b) for name, d, b in zip("kv", dims, (k_bits, v_bits))]
            return rows + [None] * (2 - len(rows))
        return [self.key_row(layer, head, token, levels, dims[0], k_bits),
                self.value_row(layer, head, token, levels, dims[1], v_bits) if len(dims) > 1 else None]

    def fp8_row(self, slice_, stream, token, d, _):
        scale = bf16(struct.unpack_from("<H", slice_[stream + "_scales"], 2 * token)[0])
        return [scale * e4m3(code) for code in slice_[stream + "_codes"][token * d:(token + 1) * d]]

    def prod_row(self, slice_, stream, token, d, bits):
        book, s = Codebook(d, bits - 1), projection(d, self.seed)
        scale, rest = (bf16(struct.unpack_from("<H", slice_[stream + part], 2 * token_slot(token))[0]) for part in ("_scales", "_rests"))
        data = slice_[stream + "_codes"]
        planes = [data[:16 * d]] + [data[i:i + 8 * d] for i in range(16 * d, len(data), 8 * d)]
        seat = key_seat if stream == "k" else value_seat
        codes = [code_at(planes, bits, d, *seat(d, token, c)) for c in range(d)]
        sigma = [-1 if code & 1 else 1 for code in codes]
        kappa = f32(math.sqrt(math.pi / 2) / d)
        back = [sum(s[j][c] * sigma[j] for j in range(d)) for c in range(d)]
        return rotate_back([scale * book.value(code >> 1, bits - 1) + rest * kappa * x for code, x in zip(codes, back)], self.seed)

    def key_row(self, layer, head, token, levels, d, bits):
        book, slot, first = Codebook(d, bits), token_slot(token), self.slices[0, layer, head]
        step = bf16(u64(first["scalars"], 0) & 0xFFFF)
        scale = bf16(struct.unpack_from("<H", first["k_scales"], 2 * slot)[0])
        for level in range(1, levels):
            if has_level(bits, level):
                ratio = f32((1 - book.mse[kept_bits(bits, level - 1)]) / (1 - book.mse[kept_bits(bits, level)]))
                q = struct.unpack_from("<b", self.slices[level, layer, head]["k_scales"], slot)[0]
                scale = f32(f32(scale * ratio) * f32(1 + q / 1024))
        planes, kept = self.planes(layer, head, "k", levels, d), kept_bits(bits, levels - 1)
        mean = struct.unpack(f"<{d}b", first["mean"])
        codes = [code_at(planes, kept, d, *key_seat(d, token, c)) for c in range(d)]
        return rotate_back([scale * book.value(codes[c], kept) + mean[c] * step for c in range(d)], self.seed)

    def value_row(self, layer, head, token, levels, d, bits):
        book, slot, first = Codebook(d, bits), token_slot(token), self.slices[0, layer, head]
        base, code = bf16(u64(first["scalars"], 2) & 0xFFFF), first["v_scales"][slot]
        scale = 0.0 if code == 255 else f32(base * f32(2**(-(code % 16) / 16)) * 2.0**-(code // 16))
        if levels == 4 and has_level(bits, 3):
            scale = f32(scale * f32(1 + struct.unpack_from("<b", self.slices[3, layer, head]["v_scales"], slot)[0] / 1024))
        planes, kept = self.planes(layer, head, "v", levels, d), kept_bits(bits, levels - 1)
        codes = [code_at(planes, kept, d, *value_seat(d, token, c)) for c in range(d)]
        return rotate_back([scale * book.value(code, kept) for code in codes], self.seed)


# ---- planes -----------------------------------------------------------------------------------------------------------------
def token_slot(token):
    return 8 * (token & 7) + 2 * (token >> 4) + (token >> 3 & 1)


# (token, channel) to (lane, unit, j): README's tables read backwards.
def key_seat(d, token, channel):
    m, r, g, n = token // 16, token // 8 % 2, token % 8, d // 32
    if channel < 32 * n:
        return 32 * m + 4 * g + channel % 32 // 8, r * n + channel // 32, channel % 8
    return 32 * m + 4 * g + channel % 16 // 4, 2 * n, 4 * r + channel % 4


def value_seat(d, token, channel):
    m, within = token // 16, token % 16
    t, j = within % 8 // 2, within % 2 + 2 * (within // 8)
    if d % 32 == 16 and channel >= d - 16:
        c = channel % 16
        g, unit = 2 * (c // 4) + c % 2, d // 16 - 1
    else:
        c = channel % 32
        g, unit = 2 * (c // 8) + c % 2, 2 * (channel // 32) + c // 4 % 2
    return 32 * m + 4 * g + t, unit, j + 4 * (c // 2 % 2)


def bits_of(plane, width, d, lane, unit, j):
    units = d // 16
    fours, pair = units // 4, units // 2 % 2
    if unit < 4 * fours:
        i = unit % 4
        word, bit = (lane * fours + unit // 4) * 4 * width, 4 * j + i if width == 1 else 32 * (i // 2) + 4 * j + 2 * (i % 2)
    elif unit < 4 * fours + 2 * pair:
        i = unit % 2
        word, bit = 128 * fours * 4 * width + lane * 2 * width, 2 * j + i if width == 1 else 4 * j + 2 * i
    else:
        word, bit = 128 * (4 * fours + 2 * pair) * width + lane * width, width * j
    return plane[word + bit // 8] >> bit % 8 & (1 << width) - 1


def code_at(planes, kept, d, lane, unit, j):
    code = bits_of(planes[0], 2, d, lane, unit, j)
    for p in range(1, kept - 1):
        code = code << 1 | bits_of(planes[p], 1, d, lane, unit, j)
    return code


# ---- checking ---------------------------------------------------------------------------------------------------------------
def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def u32(n):
    return struct.pack("<I", n)


def near(ours, golden, what):
    norm = math.sqrt(sum(x * x for x in golden)) + 1e-30
    worst = max(abs(a - b) for a, b in zip(ours, golden))
    if len(ours) != len(golden) or worst > 4e-6 * norm:
        raise ValueError(f"{what} differs by {worst / norm:.1e} of its norm")


def check_object(case):
    layout_bytes = bytes.fromhex(case["layout"])
    layout = parse_layout(layout_bytes)
    if sha(layout_bytes).hex() != case["fingerprint"]:
        raise ValueError("fingerprint")
    salt = case["salt"].encode()
    chain = [sha(b"quire.root.v1", bytes.fromhex(case["fingerprint"]), u32(len(salt)), salt, u32(0))]
    for block in range(case["index"] + 1):
        chain.append(sha(b"quire.block.v1", chain[-1], *(u32(7 * (64 * block + i) + 1) for i in range(64))))
    obj = Object(bytes.fromhex(case["object"]), layout)
    if [x.hex() for x in chain[-2:]] != [case["parent"], case["key"]] or [obj.parent, obj.key] != chain[-2:]:
        raise ValueError("key chain")
    if obj.fingerprint.hex() != case["fingerprint"] or (obj.rotation, obj.codebook, obj.seed) != (1, 1, layout["seed"]):
        raise ValueError("header against layout")
    for row in case["decoded"]:
        k, v = obj.decode(0, 0, row["token"], row["levels"])
        near(k, row["k"], f"K of token {row['token']} after {row['levels']} levels")
        if v is not None:
            near(v, row["v"], f"V of token {row['token']} after {row['levels']} levels")
    return f"{len(case['decoded'])} rows, {len(obj.data)} bytes"


def check_derived(case):
    for r in case["rotations"]:
        sample = [((splitmix((i + 1) * GOLDEN & M64) >> 40) - (1 << 23)) / (1 << 22) for i in range(r["dim"])]
        near(rotate(sample, r["seed"]), r["rotated_sample"], f"rotation of {r['dim']}")
        near(rotate_back(r["rotated_sample"], r["seed"]), sample, f"rotation back of {r['dim']}")
    for c in case["codebooks"]:
        for kept, centroids in c["centroids_by_kept_bits"].items():
            near(Codebook(c["dim"], c["bits"]).cut[int(kept)], centroids, f"codebook {c['dim']}, {c['bits']} cut to {kept}")
    return f"{len(case['rotations'])} rotations, {len(case['codebooks'])} codebooks"


def check_projections(case):
    for p in case["projections"]:
        s = projection(p["dim"], p["seed"])
        near(s[0], p["first_row"], f"first row of the projection of {p['dim']}")
        near(s[-1], p["last_row"], f"last row of the projection of {p['dim']}")
    return f"{len(case['projections'])} projections"


def check(case):
    checks = {"rotations": check_derived, "projections": check_projections}
    return next((run for field, run in checks.items() if field in case), check_object)(case)


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--check":
        files = sorted(pathlib.Path(sys.argv[2]).glob("*.json"))
        failed = not files
        for path in files:
            case = json.loads(path.read_text())
            try:
                print(f"{path.name}: ok, {check(case)}")
            except ValueError as error:
                print(f"{path.name}: FAILED: {error}")
                failed = True
        return 1 if failed else 0
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    case = json.loads(pathlib.Path(sys.argv[1]).read_text())
    obj = Object(bytes.fromhex(case["object"]), parse_layout(bytes.fromhex(case["layout"])))
    print(f"block {obj.index}, part {obj.part}, {obj.sinks} sinks, codecs {obj.codecs}, {len(obj.data)} bytes, levels {obj.extents}")
    print(f"relative errors {obj.errors}")
    for token in range(64):
        print(token, *obj.decode(0, 0, token, obj.levels))
    return 0


if __name__ == "__main__":
    sys.exit(main())

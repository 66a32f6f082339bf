"""Attention, positions and transformers in further spellings."""

import math

import torch
import torch.nn.functional as F
from torch import nn

V, T, C, K = 24, 8, 12, 6
H = 4


class TokenNet(nn.Module):
    """Embedding, one body on (b, t, w), norm, head."""

    def __init__(self, w, body, norm=True):
        super().__init__()
        self.emb, self.body = nn.Embedding(V, w), body
        self.norm, self.head = (
            nn.LayerNorm(w) if norm else nn.Identity(),
            nn.Linear(w, V, bias=False),
        )

    def forward(self, x):
        return self.head(self.norm(self.body(self.emb(x))))


class Cross(nn.Module):
    def __init__(self, w, module):
        super().__init__()
        self.ctx, self.emb = nn.Linear(C, w), nn.Embedding(V, w)
        self.ln, self.module = nn.LayerNorm(w), module
        if module:
            self.attn = nn.MultiheadAttention(w, H, batch_first=True)
        else:
            self.q, self.kv, self.o = nn.Linear(w, w), nn.Linear(w, 2 * w), nn.Linear(w, w)
        self.head = nn.Linear(w, V)

    def forward(self, x, ctx):
        h, c = self.emb(x), self.ctx(ctx)
        if self.module:
            a = self.attn(self.ln(h), c, c)[0]
        else:
            q = self.q(self.ln(h))
            k, v = self.kv(c).chunk(2, dim=-1)
            q, k, v = (z.view(z.shape[0], z.shape[1], H, -1).transpose(1, 2) for z in (q, k, v))
            att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
            a = self.o((att.softmax(-1) @ v).transpose(1, 2).reshape(h.shape))
        return self.head(h + a)


class Bahdanau(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.q, self.k, self.v = (
            nn.Linear(w, w, bias=False),
            nn.Linear(w, w, bias=False),
            nn.Linear(w, 1, bias=False),
        )

    def forward(self, x):
        e = self.v(torch.tanh(self.q(x)[:, :, None] + self.k(x)[:, None])).squeeze(-1)
        return x + e.softmax(-1) @ x


class RawBahdanau(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.q, self.k = nn.Linear(w, w, bias=False), nn.Linear(w, w, bias=False)
        self.v = nn.Parameter(torch.randn(w) / w**0.5)

    def forward(self, x):
        e = torch.tanh(self.q(x)[:, :, None] + self.k(x)[:, None]) @ self.v
        return x + torch.bmm(F.softmax(e, dim=-1), x)


class LinearAttention(nn.Module):
    """elu + 1 feature map; heads of growing size or not."""

    def __init__(self, w, grow, normalize=True):
        super().__init__()
        self.h, self.normalize = (H if grow else w // 16), normalize
        self.qkv, self.o = nn.Linear(w, 3 * w, bias=False), nn.Linear(w, w)

    def forward(self, x):
        b, t, w = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.h, -1).unbind(2)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        kv = torch.einsum("bthd,bthe->bhde", k, v)
        out = torch.einsum("bthd,bhde->bthe", q, kv)
        if self.normalize:
            z = 1 / (torch.einsum("bthd,bhd->bth", q, k.sum(1)) + 1e-6)
            out = out * z[..., None]
        return x + self.o(out.reshape(b, t, w))


class Relative(nn.Module):
    """T5: a learned bias of logits, no scale."""

    def __init__(self, w, grow, scale):
        super().__init__()
        self.h, self.scale = (H if grow else w // 16), scale
        self.q, self.k, self.v, self.o = (nn.Linear(w, w, bias=False) for _ in range(4))
        self.bias = nn.Embedding(2 * T, self.h)

    def forward(self, x):
        b, t, w = x.shape
        q, k, v = (f(x).view(b, t, self.h, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        pos = torch.arange(t)
        bias = self.bias(pos[None] - pos[:, None] + T).permute(2, 0, 1)[None]
        scores = q @ k.mT
        if self.scale:
            scores = scores / (w // self.h) ** 0.5
        scores = scores + bias
        return x + self.o(
            (scores.float().softmax(-1).type_as(scores) @ v).transpose(1, 2).reshape(b, t, w)
        )


def rotate(x):
    d = x.shape[-1]
    inv = 1.0 / (10000 ** (torch.arange(0, d, 2).float() / d))
    f = torch.outer(torch.arange(x.shape[-2]).float(), inv)
    cos, sin = torch.cat([f.cos()] * 2, -1), torch.cat([f.sin()] * 2, -1)
    a, b = x[..., : d // 2], x[..., d // 2 :]
    return x * cos + torch.cat([-b, a], -1) * sin


def rotate_complex(x):
    d = x.shape[-1]
    inv = 1.0 / (10000 ** (torch.arange(0, d, 2).float() / d))
    f = torch.outer(torch.arange(x.shape[-2]).float(), inv)
    cis = torch.polar(torch.ones_like(f), f)
    z = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(z * cis).flatten(-2).type_as(x)


class Grouped(nn.Module):
    """GQA with rotary and fused or separate; number of heads grows unless grow."""

    def __init__(self, w, how, grow=False, rot="half", fused=False, qk_norm=False):
        super().__init__()
        self.h = H if grow else w // 16
        self.g = self.h // 2 if how != "mqa" else 1
        self.d, self.how, self.rot, self.fused = w // self.h, how, rot, fused
        n = self.g * self.d
        if fused:
            self.qkv = nn.Linear(w, w + 2 * n, bias=False)
        else:
            self.q, self.k, self.v = (
                nn.Linear(w, w, bias=False),
                nn.Linear(w, n, bias=False),
                nn.Linear(w, n, bias=False),
            )
        self.o = nn.Linear(w, w, bias=False)
        self.qn, self.kn = (
            (nn.RMSNorm(self.d), nn.RMSNorm(self.d)) if qk_norm else (nn.Identity(), nn.Identity())
        )

    def forward(self, x):
        b, t, w = x.shape
        if self.fused:
            q, k, v = self.qkv(x).split([w, self.g * self.d, self.g * self.d], dim=-1)
        else:
            q, k, v = self.q(x), self.k(x), self.v(x)
        q = q.view(b, t, self.h, self.d).transpose(1, 2)
        k = k.view(b, t, self.g, self.d).transpose(1, 2)
        v = v.view(b, t, self.g, self.d).transpose(1, 2)
        q, k = self.qn(q), self.kn(k)
        r = (
            rotate
            if self.rot == "half"
            else rotate_complex
            if self.rot == "complex"
            else (lambda z: z)
        )
        q, k = r(q), r(k)
        n = self.h // self.g
        if self.how == "repeat_interleave":
            k, v = k.repeat_interleave(n, dim=1), v.repeat_interleave(n, dim=1)
        elif self.how == "expand":
            k, v = (
                z[:, :, None].expand(b, self.g, n, t, self.d).reshape(b, self.h, t, self.d)
                for z in (k, v)
            )
        if self.how == "gqa":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        elif self.how == "einsum":
            s = torch.einsum("bgnid,bgjd->bgnij", q.unflatten(1, (self.g, n)), k) / math.sqrt(
                self.d
            )
            y = torch.einsum("bgnij,bgjd->bgnid", s.softmax(-1), v).flatten(1, 2)
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.o(y.transpose(1, 2).reshape(b, t, w))


class EinsumHeads(nn.Module):
    """Raw weights of (heads, width, size)."""

    def __init__(self, w, grow):
        super().__init__()
        h = H if grow else w // 16
        d = w // h
        self.wq, self.wk, self.wv = (nn.Parameter(torch.randn(h, w, d) * w**-0.5) for _ in range(3))
        self.wo = nn.Parameter(torch.randn(h, d, w) * w**-0.5)

    def forward(self, x):
        q, k, v = (torch.einsum("btw,hwd->bhtd", x, m) for m in (self.wq, self.wk, self.wv))
        a = (torch.einsum("bhid,bhjd->bhij", q, k) / q.size(-1) ** 0.5).softmax(-1)
        return x + torch.einsum("bhid,hdw->biw", a @ v, self.wo)


class Functional(nn.Module):
    """F.multi_head_attention_forward by hand."""

    def __init__(self, w, grow):
        super().__init__()
        self.h = H if grow else w // 16
        self.w = w
        self.win, self.bin = nn.Parameter(torch.empty(3 * w, w)), nn.Parameter(torch.zeros(3 * w))
        nn.init.xavier_uniform_(self.win)
        self.out = nn.Linear(w, w)

    def forward(self, x):
        z = x.transpose(0, 1)
        a, _ = F.multi_head_attention_forward(
            z,
            z,
            z,
            self.w,
            self.h,
            self.win,
            self.bin,
            None,
            None,
            False,
            0.0,
            self.out.weight,
            self.out.bias,
            training=self.training,
            need_weights=False,
        )
        return x + a.transpose(0, 1)


class Latents(nn.Module):
    """Perceiver: learned latents attend to the tokens."""

    def __init__(self, w):
        super().__init__()
        self.latents = nn.Parameter(torch.randn(5, w))
        self.emb = nn.Embedding(V, w)
        self.q, self.k, self.v = nn.Linear(w, w), nn.Linear(w, w), nn.Linear(w, w)
        self.head = nn.Linear(w, K)

    def forward(self, x):
        h = self.emb(x)
        z = self.latents.expand(x.shape[0], -1, -1)
        q, k, v = self.q(z), self.k(h), self.v(h)
        q, k, v = (y.unflatten(-1, (H, -1)).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head((z + y).mean(1))


class ViT(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.patch = nn.Conv2d(3, w, 4, 4)
        self.cls_token, self.pos_embed = (
            nn.Parameter(torch.zeros(1, 1, w)),
            nn.Parameter(torch.randn(1, 5, w) * 0.02),
        )
        layer = nn.TransformerEncoderLayer(
            w, H, 2 * w, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(w), nn.Linear(w, K)

    def forward(self, x):
        z = self.patch(x).flatten(2).transpose(1, 2)
        z = torch.cat([self.cls_token.expand(len(z), -1, -1), z], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(z))[:, 0])


def zero_(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


class DiTBlock(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.n1, self.n2 = (nn.LayerNorm(w, elementwise_affine=False, eps=1e-6) for _ in range(2))
        self.qkv, self.proj = nn.Linear(w, 3 * w), nn.Linear(w, w)
        self.fc1, self.fc2 = nn.Linear(w, 4 * w), nn.Linear(4 * w, w)
        self.ada = nn.Sequential(nn.SiLU(), nn.Linear(w, 6 * w))
        zero_(self.ada[1])
        self.h = w // 16

    def forward(self, x, c):
        s1, b1, g1, s2, b2, g2 = self.ada(c).chunk(6, dim=1)
        h = self.n1(x) * (1 + s1.unsqueeze(1)) + b1.unsqueeze(1)
        b, t, w = x.shape
        q, k, v = self.qkv(h).reshape(b, t, 3, self.h, w // self.h).permute(2, 0, 3, 1, 4).unbind(0)
        a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, w)
        x = x + g1.unsqueeze(1) * self.proj(a)
        h = self.n2(x) * (1 + s2.unsqueeze(1)) + b2.unsqueeze(1)
        return x + g2.unsqueeze(1) * self.fc2(F.gelu(self.fc1(h), approximate="tanh"))


class DiT(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.embed, self.tmlp = (
            nn.Conv2d(3, w, 2, 2),
            nn.Sequential(nn.Linear(16, w), nn.SiLU(), nn.Linear(w, w)),
        )
        self.register_buffer("pos", torch.randn(1, 16, 1))
        self.y = nn.Embedding(10, w)
        self.blocks = nn.ModuleList(DiTBlock(w) for _ in range(2))
        self.norm = nn.LayerNorm(w, elementwise_affine=False)
        self.ada = nn.Sequential(nn.SiLU(), nn.Linear(w, 2 * w))
        self.last = nn.Linear(w, 12)
        zero_(self.ada[1])
        zero_(self.last)

    def forward(self, x, t, y):
        f = torch.exp(-math.log(1e4) * torch.arange(8).float() / 8)
        te = torch.cat([torch.cos(t[:, None] * f), torch.sin(t[:, None] * f)], -1)
        c = self.tmlp(te) + self.y(y)
        h = self.embed(x).flatten(2).transpose(1, 2) + self.pos
        for b in self.blocks:
            h = b(h, c)
        s, m = self.ada(c).chunk(2, dim=1)
        return self.last(self.norm(h) * (1 + s.unsqueeze(1)) + m.unsqueeze(1))


class Albert(nn.Module):
    """Factorised embeddings, one layer used three times, tied through the factor."""

    def __init__(self, w):
        super().__init__()
        self.emb, self.up = nn.Embedding(V, 16), nn.Linear(16, w)
        self.layer = nn.TransformerEncoderLayer(w, 4, 2 * w, dropout=0.0, batch_first=True)
        self.down, self.bias = nn.Linear(w, 16), nn.Parameter(torch.zeros(V))

    def forward(self, x):
        h = self.up(self.emb(x))
        for _ in range(3):
            h = self.layer(h)
        return F.linear(F.gelu(self.down(h)), self.emb.weight, self.bias)


class Tied(nn.Module):
    def __init__(self, w, how):
        super().__init__()
        self.emb, self.mid, self.norm, self.how = (
            nn.Embedding(V, w),
            nn.Linear(w, w),
            nn.RMSNorm(w),
            how,
        )
        if how == "transposed linear":
            self.head = nn.Linear(w, V, bias=False)
            self.emb.weight = self.head.weight
        nn.init.normal_(self.emb.weight, std=0.1)

    def forward(self, x):
        h = self.norm(self.emb(x) + F.gelu(self.mid(self.emb(x))))
        E = self.emb.weight
        if self.how == "einsum":
            return torch.einsum("btd,vd->btv", h, E)
        if self.how == "t":
            return torch.matmul(h, E.t())
        if self.how == "transpose":
            return h @ E.transpose(0, 1) * h.shape[-1] ** -0.5
        if self.how == "tensordot":
            return torch.tensordot(h, E.T, dims=1)
        if self.how == "scaled input":
            return F.linear(h / h.shape[-1], E)
        if self.how == "flat mm":
            return torch.mm(h.view(-1, h.shape[-1]), E.T).view(*x.shape, -1)
        return self.head(h)


class SqrtEmb(nn.Module):
    """Vaswani: the embedding times √d, tied."""

    def __init__(self, w):
        super().__init__()
        self.w, self.emb, self.mid, self.norm = (
            w,
            nn.Embedding(V, w),
            nn.Linear(w, w),
            nn.LayerNorm(w),
        )
        nn.init.normal_(self.emb.weight, std=w**-0.5)

    def forward(self, x):
        h = self.emb(x) * math.sqrt(self.w)
        return F.linear(self.norm(h + self.mid(h).relu()), self.emb.weight)


class Seq2Seq(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.emb, self.head = nn.Embedding(V, w), nn.Linear(w, V)
        self.net = nn.Transformer(w, 4, 1, 1, 2 * w, dropout=0.0, batch_first=True)

    def forward(self, x):
        e = self.emb(x)
        return self.head(
            self.net(
                e, e.roll(1, 1), tgt_mask=nn.Transformer.generate_square_subsequent_mask(x.shape[1])
            )
        )


class MLA(nn.Module):
    """A low-rank latent of keys and values, of fixed or growing size."""

    def __init__(self, w, grow):
        super().__init__()
        r, self.h = (w // 4 if grow else 16), w // 16
        self.q, self.down, self.norm, self.up = (
            nn.Linear(w, w, bias=False),
            nn.Linear(w, r, bias=False),
            nn.RMSNorm(r),
            nn.Linear(r, 2 * w, bias=False),
        )
        self.o = nn.Linear(w, w, bias=False)

    def forward(self, x):
        q = self.q(x).unflatten(-1, (self.h, -1)).transpose(1, 2)
        k, v = (
            self.up(self.norm(self.down(x)))
            .unflatten(-1, (self.h, -1))
            .transpose(1, 2)
            .chunk(2, -1)
        )
        return x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Alibi(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.h = 4
        self.qkv, self.o = nn.Linear(w, 3 * w), nn.Linear(w, w)
        self.register_buffer("slopes", 2.0 ** -torch.arange(1, 5).float())

    def forward(self, x):
        b, t, w = x.shape
        qkv = self.qkv(x).view(b, t, self.h, 3 * w // self.h)
        q, k, v = qkv.chunk(3, dim=-1)
        d = (torch.arange(t)[None] - torch.arange(t)[:, None]).abs()
        att = torch.baddbmm(
            (-d * self.get_buffer("slopes")[:, None, None]).repeat(b, 1, 1),
            q.permute(0, 2, 1, 3).reshape(-1, t, w // self.h),
            k.permute(0, 2, 3, 1).reshape(-1, w // self.h, t),
            alpha=(w // self.h) ** -0.5,
        )
        y = torch.bmm(att.softmax(-1), v.permute(0, 2, 1, 3).reshape(-1, t, w // self.h))
        return x + self.o(y.view(b, self.h, t, -1).transpose(1, 2).reshape(b, t, w))


def net(body, **kw):
    return lambda w: TokenNet(w, body(w), **kw)


MODELS = {
    "cross, module": (lambda w: Cross(w, True), "tokens+seq"),
    "cross, by hand": (lambda w: Cross(w, False), "tokens+seq"),
    "bahdanau": (net(Bahdanau), "tokens"),
    "bahdanau, raw v": (net(RawBahdanau), "tokens"),
    "linear attention": (net(lambda w: LinearAttention(w, False)), "tokens"),
    "linear attention, grow": (net(lambda w: LinearAttention(w, True)), "tokens"),
    "linear attention, unnormalized grow": (
        net(lambda w: LinearAttention(w, True, False)),
        "tokens",
    ),
    "relative, unscaled grow": (net(lambda w: Relative(w, True, False)), "tokens"),
    "relative, scaled": (net(lambda w: Relative(w, False, True)), "tokens"),
    "relative, scaled grow": (net(lambda w: Relative(w, True, True)), "tokens"),
    **{
        f"gqa {h}, {'grow' if g else 'number'}": (
            net(lambda w, h=h, g=g: Grouped(w, h, g)),
            "tokens",
        )
        for h in ("repeat_interleave", "expand", "gqa", "einsum")
        for g in (False, True)
    },
    "gqa fused rotary complex grow": (
        net(lambda w: Grouped(w, "expand", True, "complex", True)),
        "tokens",
    ),
    "gqa fused rotary half grow": (
        net(lambda w: Grouped(w, "repeat_interleave", True, "half", True)),
        "tokens",
    ),
    "gqa qk norm grow": (net(lambda w: Grouped(w, "gqa", True, "half", False, True)), "tokens"),
    "mqa": (net(lambda w: Grouped(w, "repeat_interleave" if 0 else "mqa", False)), "tokens"),
    "mqa grow": (net(lambda w: Grouped(w, "mqa", True)), "tokens"),
    "einsum heads": (net(lambda w: EinsumHeads(w, False)), "tokens"),
    "einsum heads grow": (net(lambda w: EinsumHeads(w, True)), "tokens"),
    "F.mha": (net(lambda w: Functional(w, False)), "tokens"),
    "F.mha grow": (net(lambda w: Functional(w, True)), "tokens"),
    "perceiver": (Latents, "tokens"),
    "ViT": (ViT, "image"),
    "DiT": (DiT, "image+t+y"),
    "ALBERT": (Albert, "tokens"),
    **{
        f"tied {h}": (lambda w, h=h: Tied(w, h), "tokens")
        for h in (
            "einsum",
            "t",
            "transpose",
            "tensordot",
            "scaled input",
            "flat mm",
            "transposed linear",
        )
    },
    "sqrt embedding tied": (SqrtEmb, "tokens"),
    "nn.Transformer": (Seq2Seq, "tokens"),
    "MLA fixed": (net(lambda w: MLA(w, False)), "tokens"),
    "MLA grow": (net(lambda w: MLA(w, True)), "tokens"),
    "alibi baddbmm grow": (net(Alibi), "tokens"),
}

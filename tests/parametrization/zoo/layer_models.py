"""Convolutions, recurrences, mixtures, graphs, recommenders and raw weights."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.parametrization.zoo.attention_models import C, K, T, V, net


class UNet(nn.Module):
    def __init__(self, w):
        super().__init__()

        def conv(i, o):
            return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.GroupNorm(8, o), nn.SiLU())

        self.a, self.b, self.c = conv(3, w), conv(w, 2 * w), conv(2 * w, 2 * w)
        self.up, self.d = nn.ConvTranspose2d(2 * w, w, 2, 2), conv(2 * w, w)
        self.out = nn.Conv2d(w, K, 1)

    def forward(self, x):
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        c = self.c(b) + b
        d = self.d(torch.cat([self.up(c), a], 1))
        return self.out(d).movedim(1, -1)


class ResNet(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, w, 3, padding=1, bias=False), nn.BatchNorm2d(w)
        self.c1, self.b1 = nn.Conv2d(w, 2 * w, 3, 2, 1, bias=False), nn.BatchNorm2d(2 * w)
        self.c2, self.b2 = nn.Conv2d(2 * w, 2 * w, 3, 1, 1, bias=False), nn.BatchNorm2d(2 * w)
        self.down = nn.Sequential(nn.Conv2d(w, 2 * w, 1, 2, bias=False), nn.BatchNorm2d(2 * w))
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(2 * w, K)

    def forward(self, x):
        x = F.relu(self.bn(self.stem(x)), inplace=True)
        y = self.b2(self.c2(F.relu(self.b1(self.c1(x)))))
        y += self.down(x)
        return self.fc(torch.flatten(self.pool(F.relu(y)), 1))


class Separable(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.stem = nn.Conv2d(3, w, 3, padding=1)
        self.dw, self.pw = nn.Conv2d(w, w, 3, padding=1, groups=w), nn.Conv2d(w, w, 1)
        self.se1, self.se2 = nn.Conv2d(w, w // 4, 1), nn.Conv2d(w // 4, w, 1)
        self.g = nn.Conv2d(w, w, 3, padding=1, groups=4)
        self.fc = nn.Linear(w, K)

    def forward(self, x):
        x = F.hardswish(self.stem(x))
        x = F.hardswish(self.pw(F.hardswish(self.dw(x))))
        s = F.adaptive_avg_pool2d(x, 1)
        x = x * torch.sigmoid(self.se2(F.relu(self.se1(s))))
        x = x + self.g(x)
        return self.fc(x.mean([2, 3]))


class ConvNeXt(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.stem = nn.Conv2d(3, w, 2, 2)
        self.dw, self.norm = nn.Conv2d(w, w, 3, padding=1, groups=w), nn.LayerNorm(w, eps=1e-6)
        self.p1, self.p2 = nn.Linear(w, 4 * w), nn.Linear(4 * w, w)
        self.gamma = nn.Parameter(1e-2 * torch.ones(w))
        self.last, self.head = nn.LayerNorm(w), nn.Linear(w, K)

    def forward(self, x):
        x = self.stem(x)
        y = self.dw(x).permute(0, 2, 3, 1)
        y = self.gamma * self.p2(F.gelu(self.p1(self.norm(y))))
        x = x + y.permute(0, 3, 1, 2)
        return self.head(self.last(x.mean([-2, -1])))


class Decoder(nn.Module):
    """A generator: latent, linear, transposed convolutions."""

    def __init__(self, w):
        super().__init__()
        self.fc = nn.Linear(C, w * 4)
        self.net = nn.Sequential(
            nn.ConvTranspose2d(w, w, 4, 2, 1, bias=False),
            nn.BatchNorm2d(w),
            nn.ReLU(True),
            nn.ConvTranspose2d(w, K, 4, 2, 1),
        )

    def forward(self, z):
        return self.net(self.fc(z).view(len(z), -1, 2, 2)).movedim(1, -1)


class VAE(nn.Module):
    def __init__(self, w, fused):
        super().__init__()
        self.enc, self.fused = (
            nn.Sequential(nn.Linear(C, w), nn.ReLU(), nn.Linear(w, w), nn.ReLU()),
            fused,
        )
        if fused:
            self.both = nn.Linear(w, 8)
        else:
            self.mu, self.logvar = nn.Linear(w, 4), nn.Linear(w, 4)
        self.dec = nn.Sequential(nn.Linear(4, w), nn.ReLU(), nn.Linear(w, K))

    def forward(self, x):
        h = self.enc(x)
        mu, logvar = self.both(h).chunk(2, -1) if self.fused else (self.mu(h), self.logvar(h))
        return self.dec(mu + torch.randn_like(mu) * torch.exp(0.5 * logvar))


class RWKV(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(w), nn.LayerNorm(w)
        self.time_decay, self.time_first = (
            nn.Parameter(-torch.rand(w)),
            nn.Parameter(torch.rand(w) * 0.3),
        )
        self.mk, self.mv, self.mr = (nn.Parameter(torch.rand(1, 1, w)) for _ in range(3))
        self.k, self.v, self.r, self.o = (nn.Linear(w, w, bias=False) for _ in range(4))
        self.ck, self.cr = nn.Parameter(torch.rand(1, 1, w)), nn.Parameter(torch.rand(1, 1, w))
        self.fk, self.fr, self.fv = (
            nn.Linear(w, 2 * w, bias=False),
            nn.Linear(w, w, bias=False),
            nn.Linear(2 * w, w, bias=False),
        )
        self.shift = nn.ZeroPad2d((0, 0, 1, -1))

    def forward(self, x):
        h = self.ln1(x)
        p = self.shift(h)
        k = self.k(h * self.mk + p * (1 - self.mk))
        v = self.v(h * self.mv + p * (1 - self.mv))
        r = self.r(h * self.mr + p * (1 - self.mr))
        num = den = torch.zeros_like(k[:, 0])
        outs = []
        for t in range(x.shape[1]):
            kt, vt = k[:, t], v[:, t]
            e = torch.exp(self.time_first + kt)
            outs.append((num + e * vt) / (den + e))
            num = torch.exp(-torch.exp(self.time_decay)) * num + torch.exp(kt) * vt
            den = torch.exp(-torch.exp(self.time_decay)) * den + torch.exp(kt)
        x = x + self.o(torch.sigmoid(r) * torch.stack(outs, 1))
        h = self.ln2(x)
        p = self.shift(h)
        k = torch.square(torch.relu(self.fk(h * self.ck + p * (1 - self.ck))))
        return x + torch.sigmoid(self.fr(h * self.cr + p * (1 - self.cr))) * self.fv(k)


class Mamba(nn.Module):
    def __init__(self, w, rank="grow"):
        super().__init__()
        d, self.n = 2 * w, 4
        self.rank = max(1, w // 16) if rank == "grow" else 4
        self.norm, self.in_proj = nn.RMSNorm(w), nn.Linear(w, 2 * d, bias=False)
        self.conv = nn.Conv1d(d, d, 3, groups=d, padding=2)
        self.x_proj, self.dt_proj = (
            nn.Linear(d, self.rank + 2 * self.n, bias=False),
            nn.Linear(self.rank, d),
        )
        self.A_log = nn.Parameter(torch.log(torch.arange(1, self.n + 1).float()).repeat(d, 1))
        self.D, self.out_proj = nn.Parameter(torch.ones(d)), nn.Linear(d, w, bias=False)

    def forward(self, x):
        n = x.shape[1]
        u, z = self.in_proj(self.norm(x)).chunk(2, dim=-1)
        u = F.silu(self.conv(u.transpose(1, 2))[..., :n].transpose(1, 2))
        dt, B, Cc = self.x_proj(u).split([self.rank, self.n, self.n], dim=-1)
        dt = F.softplus(self.dt_proj(dt))
        A = -torch.exp(self.A_log.float())
        dA = torch.exp(torch.einsum("bld,dn->bldn", dt, A))
        dBu = torch.einsum("bld,bln,bld->bldn", dt, B, u)
        s = torch.zeros(x.shape[0], u.shape[-1], self.n)
        ys = []
        for i in range(n):
            s = dA[:, i] * s + dBu[:, i]
            ys.append(torch.einsum("bdn,bn->bd", s, Cc[:, i]))
        y = (torch.stack(ys, 1) + u * self.D) * F.silu(z)
        return x + self.out_proj(y)


class MoE(nn.Module):
    w1: Any
    w2: Any
    experts: Any

    def __init__(self, w, how, e=4, k=2):
        super().__init__()
        self.how, self.e, self.k = how, e, k
        self.router = nn.Linear(w, e, bias=False)
        if how in ("index_add", "loop", "hit"):
            self.experts = nn.ModuleList(
                nn.Sequential(nn.Linear(w, 2 * w), nn.GELU(), nn.Linear(2 * w, w)) for _ in range(e)
            )
        elif how == "list":
            self.w1 = nn.ParameterList(torch.randn(w, 2 * w) / w**0.5 for _ in range(e))
            self.w2 = nn.ParameterList(torch.randn(2 * w, w) / (2 * w) ** 0.5 for _ in range(e))
        elif how == "dict":
            self.experts = nn.ModuleDict({f"e{i}": nn.Linear(w, w) for i in range(e)})
        else:
            self.w1, self.w2 = (
                nn.Parameter(torch.randn(e, w, 2 * w) / w**0.5),
                nn.Parameter(torch.randn(e, 2 * w, w) / (2 * w) ** 0.5),
            )

    def forward(self, x):
        shape = x.shape
        x = x.reshape(-1, shape[-1])
        g = F.softmax(self.router(x), dim=-1)
        top, idx = torch.topk(g, self.k, dim=-1)
        top = top / top.sum(-1, keepdim=True)
        if self.how == "hit":
            out = torch.zeros_like(x)
            mask = F.one_hot(idx, self.e).permute(2, 1, 0)
            for (i,) in (mask.sum((1, 2)) > 0).nonzero():  # those that a token was sent to
                slot, tok = torch.where(mask[i])
                out.index_add_(0, tok, self.experts[i](x[tok]) * top[tok, slot, None])
        elif self.how == "index_add":
            out = torch.zeros_like(x)
            mask = F.one_hot(idx, self.e).permute(2, 1, 0)
            for i, ex in enumerate(self.experts):
                slot, tok = torch.where(mask[i])
                out.index_add_(0, tok, ex(x[tok]) * top[tok, slot, None])
        elif self.how == "loop":
            out = torch.zeros_like(x)
            for i, ex in enumerate(self.experts):
                wt = (top * (idx == i)).sum(-1, keepdim=True)
                out = out + wt * ex(x)
        elif self.how == "dict":
            dense = torch.zeros_like(g).scatter(1, idx, top)
            out = torch.stack([ex(x) for ex in self.experts.values()], 1)
            out = (out * dense[..., None]).sum(1)
        elif self.how == "list":
            dense = torch.zeros_like(g).scatter_(1, idx, top)
            terms = [
                dense[:, i : i + 1] * (F.gelu(x @ a) @ b)
                for i, (a, b) in enumerate(zip(self.w1, self.w2, strict=True))
            ]
            out = terms[0] + terms[1] + terms[2] + terms[3]
        elif self.how == "einsum":
            dense = torch.zeros_like(g).scatter(1, idx, top)
            h = F.gelu(torch.einsum("nd,edh->neh", x, self.w1))
            out = torch.einsum("neh,ehd,ne->nd", h, self.w2, dense)
        elif self.how == "bmm":
            dense = torch.zeros_like(g).scatter(1, idx, top)
            h = F.gelu(torch.bmm(x.expand(self.e, -1, -1), self.w1))
            out = (torch.bmm(h, self.w2) * dense.T[..., None]).sum(0)
        else:  # vmap
            dense = torch.zeros_like(g).scatter(1, idx, top)
            f = torch.vmap(lambda a, b: F.gelu(x @ a) @ b)
            out = torch.einsum("end,ne->nd", f(self.w1, self.w2), dense)
        return x.reshape(shape) + out.reshape(shape)


class VmapModules(nn.Module):
    """stack_module_state with functional_call under vmap at call time."""

    def __init__(self, w):
        super().__init__()
        self.first, self.last = nn.Linear(C, w), nn.Linear(w, K)
        self.experts = nn.ModuleList(nn.Linear(w, w) for _ in range(3))

    def forward(self, x):
        h = self.first(x).relu()
        W = torch.stack([e.get_parameter("weight") for e in self.experts])
        b = torch.stack([e.get_parameter("bias") for e in self.experts])
        y = torch.vmap(lambda p: torch.func.functional_call(self.experts[0], p, (h,)))(
            {"weight": W, "bias": b}
        )
        return self.last(y.relu().mean(0))


class DLRM(nn.Module):
    def __init__(self, w, how="bmm"):
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(10, w, mode="sum") for _ in range(3))
        self.bot = nn.Sequential(nn.Linear(C, w), nn.ReLU(), nn.Linear(w, w), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(w + 6, w), nn.ReLU(), nn.Linear(w, 1))
        self.how = how

    def forward(self, dense, ids):
        x = self.bot(dense)
        ly = [t(ids[:, i : i + 1]) for i, t in enumerate(self.tables)]
        if self.how == "bmm":
            z = torch.cat([x, *ly], 1).view(len(x), 4, -1)
            z = torch.bmm(z, z.transpose(1, 2))
            li, lj = torch.tril_indices(4, 4, -1)
            r = z[:, li, lj]
        else:
            z = [x, *ly]
            pairs = [(z[i] * z[j]).sum(-1) for i in range(4) for j in range(i)]
            r = torch.stack(pairs, -1)
        return self.top(torch.cat([x, r], 1))


class FM(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.emb, self.lin, self.bias = (
            nn.Embedding(30, w),
            nn.Embedding(30, 1),
            nn.Parameter(torch.zeros(1)),
        )
        nn.init.normal_(self.emb.weight, std=0.3)

    def forward(self, ids):
        e = self.emb(ids)
        inter = 0.5 * (e.sum(1).pow(2) - e.pow(2).sum(1)).sum(1, keepdim=True)
        return self.lin(ids).sum(1) + inter + self.bias


class NCF(nn.Module):
    """Matrix factorisation."""

    def __init__(self, w):
        super().__init__()
        self.u, self.i, self.mean = (
            nn.Embedding(10, w),
            nn.Embedding(10, w),
            nn.Parameter(torch.zeros(1)),
        )
        for table in (self.u, self.i):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, ids):
        return (self.u(ids[:, 0]) * self.i(ids[:, 1])).sum(-1, keepdim=True) + self.mean


class Towers(nn.Module):
    m: Any
    scale: Any

    def __init__(self, w, score):
        super().__init__()
        self.a = nn.Sequential(nn.Linear(C, w), nn.ReLU(), nn.Linear(w, w))
        self.b = nn.Sequential(nn.Linear(C, w), nn.ReLU(), nn.Linear(w, w))
        self.score, self.scale = score, nn.Parameter(torch.tensor(2.0)) if score == "clip" else None
        if score == "bilinear":
            self.m = nn.Parameter(torch.randn(w, w) / w)
        if score == "nn.Bilinear":
            self.m = nn.Bilinear(w, w, 3)
        if score == "concat":
            self.m = nn.Linear(4 * w, 3)

    def forward(self, x, y):
        u, v = self.a(x), self.b(y)
        if self.score == "cosine":
            return F.cosine_similarity(u[:, None], v[None], dim=-1) / 0.1
        if self.score == "clip":
            u, v = u / u.norm(dim=-1, keepdim=True), v / v.norm(dim=1, keepdim=True)
            return self.scale.exp() * u @ v.t()
        if self.score == "dot":
            return u @ v.T
        if self.score == "scaled dot":
            return u @ v.T / math.sqrt(u.shape[-1])
        if self.score == "einsum":
            return torch.einsum("nd,md->nm", u, v)
        if self.score == "vdot":
            return torch.linalg.vecdot(u, v)[:, None]
        if self.score == "inner":
            return torch.inner(u, v)
        if self.score == "sum of product":
            return (u * v).sum(1, keepdim=True)
        if self.score == "bilinear":
            return u @ self.m @ v.T
        if self.score == "nn.Bilinear":
            return self.m(u, v)
        if self.score == "l2":
            return -(u - v).pow(2).sum(-1, keepdim=True)
        if self.score == "cdist":
            return -torch.cdist(u, v)
        if self.score == "pairwise":
            return -F.pairwise_distance(u, v)[:, None]
        return self.m(torch.cat([u, v, (u - v).abs(), u * v], -1))


class GCN(nn.Module):
    def __init__(self, w, how):
        super().__init__()
        self.how = how
        self.l1, self.l2, self.out = nn.Linear(C, w), nn.Linear(w, w), nn.Linear(w, K)
        self.att_src, self.att_dst = (
            nn.Parameter(torch.randn(1, 4, w // 4) * (w // 4) ** -0.5),
            nn.Parameter(torch.randn(1, 4, w // 4) * (w // 4) ** -0.5),
        )
        if how not in ("gat",):
            del self.att_src, self.att_dst
        if how == "gatv2":
            self.a = nn.Linear(w, 1, bias=False)
        if how == "edge mlp":
            self.e = nn.Sequential(nn.Linear(2 * w, w), nn.SiLU(), nn.Linear(w, w))

    def forward(self, x, edges):
        src, dst = edges
        h = self.l1(x).relu()
        n = len(x)
        z = self.l2(h)
        if self.how == "scatter":
            deg = torch.zeros(n).scatter_add_(0, dst, torch.ones(dst.shape[0])).clamp(min=1)
            out = (
                torch.zeros_like(z).scatter_add_(0, dst[:, None].expand(-1, z.shape[1]), z[src])
                / deg[:, None]
            )
        elif self.how == "index_add":
            out = torch.zeros_like(z).index_add_(0, dst, z[src])
        elif self.how == "sparse":
            A = torch.sparse_coo_tensor(torch.stack([dst, src]), torch.ones(len(src)), (n, n))
            out = torch.sparse.mm(A, z)
        elif self.how == "edge mlp":
            out = torch.zeros_like(z).index_add(0, dst, self.e(torch.cat([z[src], z[dst]], -1)))
        elif self.how == "gatv2":
            e = self.a(F.leaky_relu(z[src] + z[dst], 0.2)).exp()
            den = torch.zeros(n, 1).index_add(0, dst, e) + 1e-9
            out = torch.zeros_like(z).index_add(0, dst, z[src] * e / den[dst])
        else:
            zh = z.view(n, 4, -1)
            s = (zh * self.att_src).sum(-1)[src] + (zh * self.att_dst).sum(-1)[dst]
            e = F.leaky_relu(s, 0.2).exp()
            den = torch.zeros(n, 4).index_add(0, dst, e) + 1e-9
            out = (
                torch.zeros_like(zh)
                .index_add(0, dst, zh[src] * (e / den[dst])[..., None])
                .view(n, -1)
            )
        return self.out((h + out).relu())


class LstmProj(nn.Module):
    def __init__(self, w, how):
        super().__init__()
        self.emb, self.how = nn.Embedding(V, w), how
        n = w
        if how == "proj":
            self.rnn = nn.LSTM(w, 2 * w, proj_size=w, num_layers=2, batch_first=True)
        elif how == "bi":
            self.rnn, n = nn.GRU(w, w, bidirectional=True, batch_first=True), 2 * w
        elif how == "cell":
            self.rnn = nn.GRUCell(w, w)
        elif how == "lstm cell":
            self.rnn = nn.LSTMCell(w, w)
        else:
            self.gates = nn.Linear(2 * w, 4 * w)
        self.head = nn.Linear(n, V)

    def forward(self, x):
        e = self.emb(x)
        if self.how in ("proj", "bi"):
            return self.head(self.rnn(e)[0])
        h = c = torch.zeros_like(e[:, 0])
        out = []
        for t in range(e.shape[1]):
            if self.how == "cell":
                h = self.rnn(e[:, t], h)
            elif self.how == "lstm cell":
                h, c = self.rnn(e[:, t], (h, c))
            else:
                i, f, g, o = self.gates(torch.cat([e[:, t], h], -1)).chunk(4, -1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
            out.append(h)
        return self.head(torch.stack(out, dim=1))


class SwiGLU(nn.Module):
    def __init__(self, w, how):
        super().__init__()
        self.norm, self.how = nn.RMSNorm(w), how
        2 * w if how != "separate" else w
        self.w12 = nn.Linear(w, 2 * w, bias=False)
        if how == "separate":
            self.w1 = nn.Linear(w, w)
            self.w12 = nn.Linear(w, w)
        self.w3 = nn.Linear(w, w, bias=False)

    def forward(self, x):
        h = self.norm(x)
        if self.how == "chunk":
            a, b = self.w12(h).chunk(2, dim=-1)
            y = F.silu(a) * b
        elif self.how == "glu":
            y = F.glu(self.w12(h), dim=-1)
        elif self.how == "reshape":
            a, b = self.w12(h).reshape(*h.shape[:-1], -1, 2).unbind(-1)
            y = F.gelu(a) * b
        else:
            y = F.silu(self.w1(h)) * self.w12(h)
        return x + self.w3(y)


class Old(nn.Module):
    """weight_norm of old (hooks), spectral_norm, orthogonal."""

    def __init__(self, w, how):
        super().__init__()
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrap = {
                "weight_norm": lambda m: nn.utils.weight_norm(m),
                "spectral_norm": nn.utils.parametrizations.spectral_norm,
                "old spectral": nn.utils.spectral_norm,
                "orthogonal": nn.utils.parametrizations.orthogonal,
            }[how]
            self.first, self.mid = nn.Linear(C, w), wrap(nn.Linear(w, w))
        self.last = nn.Linear(w, K)

    def forward(self, x):
        return self.last(self.mid(self.first(x).relu()).relu())


class Normalized(nn.Module):
    """nGPT: normalized weights; EqualizedLinear; standardized convolution."""

    s: Any

    def __init__(self, w, how):
        super().__init__()
        self.first, self.how, self.w = nn.Linear(C, w), how, w
        self.m = nn.Parameter(torch.randn(w, w))
        self.s = nn.Parameter(torch.ones(w)) if how == "scaled" else None
        self.last = nn.Linear(w, K)

    def forward(self, x):
        h = self.first(x).relu()
        if self.how == "equalized":
            y = F.linear(h, self.m * (1 / math.sqrt(self.w)))
        elif self.how == "normalize":
            y = F.linear(h, F.normalize(self.m, dim=-1))
        elif self.how == "scaled":
            y = F.linear(h, F.normalize(self.m, dim=-1)) * self.s
        elif self.how == "standardized":
            y = (
                F.linear(
                    h,
                    (self.m - self.m.mean(1, keepdim=True)) / (self.m.std(1, keepdim=True) + 1e-5),
                )
                / self.w**0.5
            )
        elif self.how == "softmax":
            y = F.linear(h, self.m.softmax(-1))
        else:  # tanh
            y = F.linear(h, self.m.tanh()) / self.w**0.5
        return self.last(y.relu())


class Lora(nn.Module):
    def __init__(self, w, r=4):
        super().__init__()
        self.first, self.base, self.last = nn.Linear(C, w), nn.Linear(w, w), nn.Linear(w, K)
        self.A, self.B = nn.Linear(w, r, bias=False), nn.Linear(r, w, bias=False)
        nn.init.zeros_(self.B.weight)
        self.base.requires_grad_(False)

    def forward(self, x):
        h = self.first(x).relu()
        return self.last((self.base(h) + 2.0 * self.B(self.A(h))).relu())


class TiedAuto(nn.Module):
    def __init__(self, w, deep):
        super().__init__()
        self.e1, self.e2 = nn.Linear(C, w), nn.Linear(w, w if deep else 4)
        self.b1, self.b2 = nn.Parameter(torch.zeros(w)), nn.Parameter(torch.zeros(C))

    def forward(self, x):
        z = self.e2(self.e1(x).relu())
        h = F.linear(z, self.e2.weight.t(), self.b1).relu()
        return F.linear(h, self.e1.weight.t(), self.b2)


class Bag(nn.Module):
    def __init__(self, w, mode):
        super().__init__()
        self.bag, self.mid, self.last = (
            nn.EmbeddingBag(V, w, mode=mode),
            nn.Linear(w, w),
            nn.Linear(w, K),
        )

    def forward(self, x):
        return self.last(self.mid(self.bag(x)).relu())


class Params(nn.Module):
    def __init__(self, w, how):
        super().__init__()
        self.how = how
        self.p = nn.ParameterDict(
            {
                "in": torch.randn(C, w) / C**0.5,
                "mid": torch.randn(w, w) / w**0.5,
                "out": torch.randn(w, K) / w**0.5,
                "b": torch.zeros(w),
            }
        )

    def forward(self, x):
        p = self.p
        if self.how == "addmm":
            h = torch.addmm(p["b"], x, p["in"]).relu()
            h = torch.addmm(p["b"], h, p["mid"]).relu()
        elif self.how == "tensordot":
            h = torch.tensordot(x, p["in"], 1).relu() + p["b"]
            h = torch.tensordot(h, p["mid"], dims=1).relu()
        elif self.how == "expand bmm":
            h = (x[:, None] @ p["in"]).relu()
            h = torch.bmm(h, p["mid"].expand(len(x), -1, -1)).relu()[:, 0] + p["b"]
        elif self.how == "mv":
            h = (x @ p["in"] + p["b"]).relu()
            h = torch.stack([torch.mv(p["mid"], r) for r in h]).relu()
        elif self.how == "ein transposed":
            h = torch.einsum("nc,cw->nw", x, p["in"]).relu() + p["b"]
            h = torch.einsum("ij,nj->ni", p["mid"], h).relu()
        elif self.how == "left":
            h = (p["in"].T @ x.T + p["b"][:, None]).relu()
            h = (p["mid"] @ h).relu().T
        elif self.how == "kron sum":
            h = (x[..., None] * p["in"]).sum(1).relu() + p["b"]
            h = (h[:, :, None] * p["mid"][None]).sum(dim=1).relu()
        elif self.how == "mean product":
            h = (x @ p["in"] + p["b"]).relu()
            h = (h[:, None] * p["mid"]).mean(-1).relu() * h.shape[-1] ** 0.5
        elif self.how == "conv":
            h = (x @ p["in"] + p["b"]).relu()
            h = F.conv1d(h[..., None], p["mid"][..., None])[..., 0].relu()
        elif self.how == "symmetric":
            h = (x @ p["in"] + p["b"]).relu()
            h = (h @ (p["mid"] + p["mid"].T)).relu()
        else:  # triangular
            h = (x @ p["in"] + p["b"]).relu()
            h = (h @ torch.tril(p["mid"])).relu()
        return h @ p["out"]


class Hyper(nn.Module):
    """A network that makes another one's matrix."""

    def __init__(self, w):
        super().__init__()
        self.z, self.gen = nn.Parameter(torch.randn(8)), nn.Linear(8, w * w)
        self.first, self.last, self.w = nn.Linear(C, w), nn.Linear(w, K), w

    def forward(self, x):
        m = self.gen(self.z).view(self.w, self.w) / self.w**0.5
        return self.last(F.linear(self.first(x).relu(), m).relu())


class DynamicHyper(nn.Module):
    """Fast weights per sample."""

    def __init__(self, w):
        super().__init__()
        self.first, self.gen, self.last, self.w = (
            nn.Linear(C, w),
            nn.Linear(C, w * w),
            nn.Linear(w, K),
            w,
        )

    def forward(self, x):
        m = self.gen(x).view(-1, self.w, self.w)
        return self.last(torch.bmm(m, self.first(x).relu().unsqueeze(-1)).squeeze(-1).relu())


class MoS(nn.Module):
    def __init__(self, w, k=3):
        super().__init__()
        self.emb, self.mid, self.k = nn.Embedding(V, w), nn.Linear(w, w), k
        self.prior, self.latent, self.dec = (
            nn.Linear(w, k, bias=False),
            nn.Linear(w, k * w),
            nn.Linear(w, V),
        )

    def forward(self, x):
        h = self.mid(self.emb(x)).relu()
        lat = torch.tanh(self.latent(h)).view(-1, h.shape[-1])
        prob = F.softmax(self.dec(lat), -1).view(-1, self.k, V)
        prior = F.softmax(self.prior(h).view(-1, self.k), -1)
        return (prob * prior.unsqueeze(2)).sum(1).add(1e-8).log().view(*x.shape, V)


class Mixer(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(w), nn.LayerNorm(w)
        self.t1, self.t2, self.c1, self.c2 = (
            nn.Linear(T, 16),
            nn.Linear(16, T),
            nn.Linear(w, 2 * w),
            nn.Linear(2 * w, w),
        )

    def forward(self, x):
        x = x + self.t2(F.gelu(self.t1(self.n1(x).transpose(1, 2)))).transpose(1, 2)
        return x + self.c2(F.gelu(self.c1(self.n2(x))))


class GMLP(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.norm, self.up, self.n2, self.spatial, self.down = (
            nn.LayerNorm(w),
            nn.Linear(w, 2 * w),
            nn.LayerNorm(w),
            nn.Conv1d(T, T, 1),
            nn.Linear(w, w),
        )
        nn.init.constant_(self.spatial.get_parameter("bias"), 1.0)

    def forward(self, x):
        u, v = F.gelu(self.up(self.norm(x))).chunk(2, -1)
        return x + self.down(u * self.spatial(self.n2(v)))


class FiLM(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.a, self.cond, self.mid, self.out = (
            nn.Linear(C, w),
            nn.Linear(C, 2 * w),
            nn.Linear(w, w),
            nn.Linear(w, K),
        )

    def forward(self, x, y):
        g, b = torch.chunk(self.cond(y), 2, 1)
        return self.out(F.relu(self.mid(F.relu((1 + g) * self.a(x) + b))))


class Pool(nn.Module):
    """Attention pooling by a linear score or a query vector."""

    def __init__(self, w, how):
        super().__init__()
        self.emb, self.mid, self.out, self.how = (
            nn.Embedding(V, w),
            nn.Linear(w, w),
            nn.Linear(w, K),
            how,
        )
        if how == "linear":
            self.score = nn.Linear(w, 1)
        else:
            self.q = nn.Parameter(torch.randn(w) / (w**0.5 if how == "vector" else 1))

    def forward(self, x):
        h = torch.tanh(self.mid(self.emb(x)))
        if self.how == "linear":
            a = self.score(h).softmax(1)
        elif self.how == "vector":
            a = (h @ self.q).softmax(1)[..., None]
        else:
            a = ((h * self.q).sum(-1) / h.shape[-1] ** 0.5).softmax(1).unsqueeze(-1)
        return self.out((a * h).sum(1))


class Memory(nn.Module):
    """Keys and values as one table of slots."""

    def __init__(self, w, tied):
        super().__init__()
        self.first, self.keys, self.out = (
            nn.Linear(C, w),
            nn.Parameter(torch.randn(10, w) / w**0.5),
            nn.Linear(w, K),
        )
        self.values = self.keys if tied else nn.Parameter(torch.randn(10, w))

    def forward(self, x):
        h = self.first(x).relu()
        return self.out(h + F.softmax(h @ self.keys.T, -1) @ self.values)


class Norms(nn.Module):
    """Norms written by hand."""

    def __init__(self, w, how):
        super().__init__()
        self.first, self.mid, self.out, self.how = (
            nn.Linear(C, w),
            nn.Linear(w, w),
            nn.Linear(w, K),
            how,
        )
        self.g = nn.Parameter(torch.ones(w))

    def forward(self, x):
        h = self.mid(self.first(x).relu())
        if self.how == "rms":
            h = self.g * h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)
        elif self.how == "layer":
            h = self.g * (h - h.mean(-1, keepdim=True)) / (h.std(-1, keepdim=True) + 1e-6)
        elif self.how == "l2":
            h = F.normalize(h, dim=-1) * self.g * h.shape[-1] ** 0.5
        elif self.how == "scale":
            h = F.normalize(h, dim=-1) * 8.0 + self.g
        elif self.how == "sphere":
            h = h / h.norm(dim=-1, keepdim=True) + self.g
        elif self.how == "var_mean":
            v, m = torch.var_mean(h, -1, keepdim=True)
            h = (h - m) / torch.sqrt(v + 1e-6) * self.g
        elif self.how == "instance":
            h = F.layer_norm(h, h.shape[-1:]) * self.g
        return self.out(h.relu())


class Style(nn.Module):
    """StyleGAN2: modulated and demodulated weights."""

    def __init__(self, w):
        super().__init__()
        self.const, self.map, self.aff = (
            nn.Parameter(torch.randn(1, w, 4, 4)),
            nn.Linear(C, w),
            nn.Linear(w, w),
        )
        self.weight, self.rgb = nn.Parameter(torch.randn(w, w, 3, 3)), nn.Conv2d(w, K, 1)

    def forward(self, z):
        s = self.aff(self.map(z).relu()) + 1
        b, w = s.shape
        m = self.weight[None] * s[:, None, :, None, None]
        m = m * torch.rsqrt(m.pow(2).sum([2, 3, 4], keepdim=True) + 1e-8)
        x = self.const.expand(b, -1, -1, -1).reshape(1, b * w, 4, 4)
        x = F.conv2d(x, m.view(b * w, w, 3, 3), padding=1, groups=b).view(b, w, 4, 4)
        return self.rgb(F.leaky_relu(x, 0.2)).movedim(1, -1)


class Siren(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(C, w), nn.Linear(w, w), nn.Linear(w, K)

    def forward(self, x):
        return self.c(torch.sin(3 * self.b(torch.sin(3 * self.a(x)))))


class Maxout(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(C, w), nn.Linear(w, 3 * w), nn.Linear(w, K)

    def forward(self, x):
        return self.c(self.b(self.a(x).relu()).view(len(x), -1, 3).amax(-1))


class Head2(nn.Module):
    """A dict of outputs, and two heads."""

    def __init__(self, w):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(C, w), nn.Tanh(), nn.Linear(w, w), nn.Tanh())
        self.heads = nn.ModuleDict({"a": nn.Linear(w, K), "b": nn.Linear(w, 1)})

    def forward(self, x):
        h = self.body(x)
        return torch.cat([self.heads["a"](h), self.heads["b"](h)], -1)


class Highway(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.a, self.h, self.t, self.c = (
            nn.Linear(C, w),
            nn.Linear(w, w),
            nn.Linear(w, w),
            nn.Linear(w, K),
        )

    def forward(self, x):
        x = self.a(x)
        t = torch.sigmoid(self.t(x))
        return self.c(t * self.h(x).relu() + (1 - t) * x)


class DenseNet(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.a, self.b, self.c, self.d = (
            nn.Linear(C, w),
            nn.Linear(w, w),
            nn.Linear(2 * w, w),
            nn.Linear(3 * w, K),
        )

    def forward(self, x):
        a = self.a(x).relu()
        b = self.b(a).relu()
        c = self.c(torch.cat([a, b], -1)).relu()
        return self.d(torch.cat([a, b, c], -1))


class InputSkip(nn.Module):
    """Raw inputs are joined to wide features (NeRF)."""

    def __init__(self, w):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(C, w), nn.Linear(w + C, w), nn.Linear(w, K)

    def forward(self, x):
        return self.c(self.b(torch.cat([self.a(x).relu(), x], -1)).relu())


class Sets(nn.Module):
    def __init__(self, w, how):
        super().__init__()
        self.phi, self.rho, self.how = (
            nn.Sequential(nn.Linear(C, w), nn.ReLU(), nn.Linear(w, w)),
            nn.Sequential(nn.Linear(w, w), nn.ReLU(), nn.Linear(w, K)),
            how,
        )

    def forward(self, x):
        h = self.phi(x)
        return (
            self.rho({"sum": h.sum, "mean": h.mean, "logsumexp": h.logsumexp}[self.how](1))
            if self.how != "max"
            else self.rho(h.max(1).values)
        )


class Corr(nn.Module):
    """Barlow twins: a cross correlation of features is w × w."""

    def __init__(self, w):
        super().__init__()
        self.a = nn.Sequential(nn.Linear(C, w), nn.ReLU(), nn.Linear(w, w))

    def forward(self, x, y):
        z, q = self.a(x), self.a(y)
        return (z.T @ q / len(x)).diagonal().mean()[None, None]


def latent(w):
    return nn.Sequential(
        nn.Linear(C, w),
        nn.ReLU(),
        nn.Linear(w, w),
        nn.ReLU(),
        nn.Linear(w, 3),
        nn.Linear(3, w),
        nn.ReLU(),
        nn.Linear(w, w),
        nn.ReLU(),
        nn.Linear(w, K),
    )


MODELS = {
    "U-Net": (UNet, "image"),
    "ResNet": (ResNet, "image"),
    "separable": (Separable, "image"),
    "ConvNeXt": (ConvNeXt, "image"),
    "decoder": (Decoder, "features"),
    "VAE": (lambda w: VAE(w, False), "features"),
    "VAE fused": (lambda w: VAE(w, True), "features"),
    "RWKV": (net(RWKV), "tokens"),
    "Mamba": (net(Mamba), "tokens"),
    "Mamba fixed rank": (net(lambda w: Mamba(w, "fixed")), "tokens"),
    **{
        f"MoE {h}": (net(lambda w, h=h: MoE(w, h)), "tokens")
        for h in ("index_add", "hit", "loop", "list", "dict", "einsum", "bmm", "vmap")
    },
    "vmap modules": (VmapModules, "features"),
    "DLRM": (DLRM, "features+ids"),
    "DLRM sum": (lambda w: DLRM(w, "sum"), "features+ids"),
    "FM": (FM, "ids"),
    "NCF": (NCF, "ids"),
    **{
        f"towers {s}": (lambda w, s=s: Towers(w, s), "pair")
        for s in (
            "cosine",
            "clip",
            "dot",
            "scaled dot",
            "einsum",
            "vdot",
            "inner",
            "sum of product",
            "bilinear",
            "nn.Bilinear",
            "l2",
            "cdist",
            "pairwise",
            "concat",
        )
    },
    **{
        f"graph {h}": (lambda w, h=h: GCN(w, h), "graph")
        for h in ("scatter", "index_add", "sparse", "edge mlp", "gatv2", "gat")
    },
    **{
        f"recurrent {h}": (lambda w, h=h: LstmProj(w, h), "tokens")
        for h in ("proj", "bi", "cell", "lstm cell", "by hand")
    },
    **{
        f"swiglu {h}": (net(lambda w, h=h: SwiGLU(w, h)), "tokens")
        for h in ("chunk", "glu", "reshape", "separate")
    },
    **{
        f"old {h}": (lambda w, h=h: Old(w, h), "features")
        for h in ("weight_norm", "spectral_norm", "old spectral", "orthogonal")
    },
    **{
        f"normalized {h}": (lambda w, h=h: Normalized(w, h), "features")
        for h in ("equalized", "normalize", "scaled", "standardized", "softmax", "tanh")
    },
    "LoRA frozen": (Lora, "features"),
    "tied auto": (lambda w: TiedAuto(w, False), "features"),
    "tied auto deep": (lambda w: TiedAuto(w, True), "features"),
    **{f"bag {m}": (lambda w, m=m: Bag(w, m), "tokens") for m in ("sum", "mean", "max")},
    **{
        f"raw {h}": (lambda w, h=h: Params(w, h), "features")
        for h in (
            "addmm",
            "tensordot",
            "expand bmm",
            "mv",
            "ein transposed",
            "left",
            "kron sum",
            "mean product",
            "conv",
            "symmetric",
            "triangular",
        )
    },
    "hyper": (Hyper, "features"),
    "fast weights": (DynamicHyper, "features"),
    "MoS": (MoS, "tokens"),
    "mixer": (net(Mixer), "tokens"),
    "gMLP": (net(GMLP), "tokens"),
    "FiLM": (FiLM, "pair"),
    **{
        f"pool {h}": (lambda w, h=h: Pool(w, h), "tokens")
        for h in ("linear", "vector", "scaled vector")
    },
    "memory": (lambda w: Memory(w, False), "features"),
    "memory tied": (lambda w: Memory(w, True), "features"),
    **{
        f"norm {h}": (lambda w, h=h: Norms(w, h), "features")
        for h in ("rms", "layer", "l2", "scale", "sphere", "var_mean", "instance")
    },
    "StyleGAN2": (Style, "features"),
    "SIREN": (Siren, "features"),
    "maxout": (Maxout, "features"),
    "two heads": (Head2, "features"),
    "highway": (Highway, "features"),
    "dense": (DenseNet, "features"),
    "input skip": (InputSkip, "features"),
    **{f"set {h}": (lambda w, h=h: Sets(w, h), "seq") for h in ("sum", "mean", "logsumexp", "max")},
    "correlation": (Corr, "pair"),
    "latent": (latent, "features"),
}

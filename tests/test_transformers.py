"""Transformer blocks against their formulas: written out here again, token by token and head by head."""

import math

import pytest
import torch
from torch import Tensor, nn

from scoreatlas.bench.architectures import flops
from scoreatlas.nn.conditioning import BLOCKS, CrossAttended, InContext
from scoreatlas.nn.dit import DiT
from scoreatlas.nn.layers import FourierFeatures
from scoreatlas.nn.mmdit import JointBlock, MMDiT, SharedBlock
from scoreatlas.nn.tokens import TimeEmbedding, patchify, sincos_2d, unpatchify
from scoreatlas.rng import Rng

DIM, HEADS = 16, 4
ROUNDING = 1e-12  # float64, values of order 1, sums of some hundred terms


def numbers(seed: int, *shape: int) -> Tensor:
    return Rng([seed], dtype=torch.float64).normal(*shape)[0]


def moved(module: nn.Module) -> nn.Module:
    """In float64, with every parameter moved: nothing is zero by initialisation any more."""
    module = module.double().eval()
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p.add_(0.3 * numbers(100 + i, *p.shape))
    return module


def norm(x: Tensor, weight: Tensor | float = 1.0, bias: Tensor | float = 0.0) -> Tensor:
    """Layer norm from its definition."""
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / (variance + 1e-6).sqrt() * weight + bias


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, heads: int = HEADS) -> Tensor:
    """One query and one head at a time, scaled by sqrt(dim / heads); (n, dim), (m, dim), (m, dim) -> (n, dim)."""
    size = q.shape[1] // heads
    out = torch.zeros_like(q)
    for i in range(len(q)):
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            weight = (k[:, part] @ q[i, part] / math.sqrt(size)).exp()
            out[i, part] = (weight / weight.sum()) @ v[:, part]
    return out


def affine(layer: nn.Linear, x: Tensor) -> Tensor:
    return x @ layer.weight.T + layer.bias


def self_attention(layer, x: Tensor) -> Tensor:
    return affine(layer.out, softmax_attention(*affine(layer.qkv, x).chunk(3, 1)))


def mlp(layer: nn.Sequential, x: Tensor) -> Tensor:
    h = affine(layer[0], x)
    gelu = h / 2 * (1 + (math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)).tanh())
    return affine(layer[2], gelu)


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def written_out(kind: str, b: nn.Module, x: Tensor, c: Tensor) -> Tensor:
    """The four blocks for one image: x (n, dim), c = [emb(t); emb(y)] (2, dim)."""
    if kind == "in-context":
        h = torch.cat([x, c])
        h = h + self_attention(b.attention, norm(h, b.norm1.weight, b.norm1.bias))
        return (h + mlp(b.mlp, norm(h, b.norm2.weight, b.norm2.bias)))[: len(x)]
    if kind == "cross-attention":
        h = x + self_attention(b.attention, norm(x, b.norm1.weight, b.norm1.bias))
        q = affine(b.cross.q, norm(h, b.norm2.weight, b.norm2.bias))
        h = h + affine(b.cross.out, softmax_attention(q, *affine(b.cross.kv, c).chunk(2, 1)))
        return h + mlp(b.mlp, norm(h, b.norm3.weight, b.norm3.bias))
    m = affine(b.modulation[1], silu(c[0] + c[1]))
    if kind == "adaLN-Zero":
        shift1, scale1, g1, shift2, scale2, g2 = m.split(DIM)
    else:
        shift1, scale1, shift2, scale2 = m.split(DIM)
        g1 = g2 = torch.ones(DIM, dtype=torch.float64)
    h = x + g1 * self_attention(b.attention, norm(x) * (1 + scale1) + shift1)
    return h + g2 * mlp(b.mlp, norm(h) * (1 + scale2) + shift2)


@pytest.mark.parametrize("kind", BLOCKS)
def test_block_is_its_formula(kind):
    block = moved(BLOCKS[kind](DIM, HEADS))
    x, c = numbers(1, 2, 6, DIM), numbers(2, 2, 2, DIM)
    got, after = block(x, c)
    for row in range(2):  # and rows do not mix
        assert torch.allclose(got[row], written_out(kind, block, x[row], c[row]), atol=ROUNDING * 100)
    assert torch.equal(after, c) == (kind != "in-context")


@pytest.mark.parametrize("kind", BLOCKS)
def test_only_adaln_zero_starts_as_the_identity(kind):
    """Bit for bit; the others change their input by as much as it is large."""
    for seed in range(3):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            block = BLOCKS[kind](DIM, HEADS)
        x, c = numbers(1, 2, 6, DIM).float(), numbers(2, 2, 2, DIM).float()
        y, _ = block(x, c)
        change = float((y - x).detach().norm() / x.norm())
        assert torch.equal(y, x) if kind == "adaLN-Zero" else change > 0.3, change


def test_scale_and_shift_neutral_at_zero_and_the_gate_per_channel():
    block = moved(BLOCKS["adaLN-Zero"](DIM, HEADS))
    x, c = numbers(1, 1, 6, DIM), numbers(2, 1, 2, DIM)
    with torch.no_grad():
        block.modulation[1].weight.zero_()
        block.modulation[1].bias.copy_(torch.eye(6 * DIM, dtype=torch.float64)[2 * DIM + 3])  # g1 = e_3, the rest 0
    y, _ = block(x, c)
    moved_channels = (y - x).abs().amax((0, 1)) > 0
    assert moved_channels.nonzero().flatten().tolist() == [3]
    assert torch.allclose((y - x)[0, :, 3], self_attention(block.attention, norm(x[0]))[:, 3], atol=ROUNDING * 100)


def test_patchify_and_back_and_where_a_pixel_goes():
    x = torch.arange(2 * 3 * 8 * 12.0).reshape(2, 3, 8, 12)
    tokens = patchify(x, 4)
    assert tokens.shape == (2, 6, 48)
    assert torch.equal(unpatchify(tokens, 4, 8), x)
    row, column, channel = 5, 9, 2  # token (1, 2), inside it (1, 1)
    assert torch.equal(tokens[:, 1 * 3 + 2, (1 * 4 + 1) * 3 + channel], x[:, channel, row, column])


def test_positions_are_the_formula():
    table = sincos_2d(16, 3, 5)
    assert table.shape == (15, 16)
    for row in range(3):
        for column in range(5):
            for k in range(4):
                w = 10_000 ** (-k / 4)
                want = [math.sin(column * w), math.cos(column * w), math.sin(row * w), math.cos(row * w)]
                assert torch.allclose(table[row * 5 + column, k::4], torch.tensor(want), atol=1e-7)  # float32
    assert len({tuple(r) for r in table.tolist()}) == 15
    with pytest.raises(ValueError, match="multiple of 4"):
        sincos_2d(6, 2, 2)


def test_time_embedding_of_the_survey_s_example():
    """t = 50, dim 8: the arguments are [50, 5, 0.5, 0.05]."""
    layer = FourierFeatures(8)
    assert torch.allclose(50 * layer.frequencies, torch.tensor([50, 5, 0.5, 0.05]), rtol=1e-6)
    e = layer(torch.tensor([50.0]))[0]
    assert torch.allclose(torch.atan2(e[4:], e[:4])[2:], torch.tensor([0.5, 0.05]), rtol=1e-5)
    body = TimeEmbedding(32).body  # and the network's has 256 channels whatever its width
    assert (body[1].in_features, body[1].out_features) == (256, 32)


@pytest.mark.parametrize("kind", BLOCKS)
def test_fresh_dit_returns_zero_and_reads_time_class_and_place_when_trained(kind):
    net = DiT(side=8, patch=4, dim=DIM, depth=2, conditioning=kind)
    x, t, y = numbers(1, 2, 1, 8, 8).float(), torch.tensor([1.0, 2.0]), torch.tensor([3, 4])
    assert torch.equal(net(x, t, y), torch.zeros_like(x))
    net, x, t = moved(net), x.double(), t.double()
    base = net(x, t, y)
    assert float((net(x, t + 5, y) - base).detach().abs().max()) > 1e-3
    assert float((net(x, t, y + 1) - base).detach().abs().max()) > 1e-3
    assert torch.equal(net(x, t), net(x, t, torch.full((2,), 10)))  # no label is the null class
    assert torch.allclose(net(x[:1], t[:1], y[:1]), base[:1], atol=1e-10)  # rows do not mix
    swapped = unpatchify(patchify(x, 4).flip(1), 4, 8)
    back = unpatchify(patchify(net(swapped, t, y), 4).flip(1), 4, 8)
    assert float((back - base).detach().abs().max()) > 1e-3  # without places this would be 0


def joint(last: bool = False) -> JointBlock:
    return moved(JointBlock(DIM, HEADS, last))


def test_joint_attention_is_attention_over_the_concatenation():
    """Each stream has its own weights; keys and values are everybody's."""
    block, c = joint(), numbers(3, 1, DIM)
    words, x = numbers(1, 1, 3, DIM), numbers(2, 1, 5, DIM)
    got_words, got = block(words, x, c)
    parts = []
    for stream, tokens in ((block.context, words[0]), (block.image, x[0])):
        m = affine(stream.modulation[1], silu(c[0])).split(DIM)
        parts.append((stream, tokens, m, affine(stream.attention.qkv, norm(tokens) * (1 + m[1]) + m[0]).chunk(3, 1)))
    q, k, v = (torch.cat([p[3][i] for p in parts]) for i in range(3))
    h = softmax_attention(q, k, v)
    for (stream, tokens, m, _), share, got_part in zip(parts, (h[:3], h[3:]), (got_words[0], got[0]), strict=True):
        want = tokens + m[2] * affine(stream.attention.out, share)
        want = want + m[5] * mlp(stream.mlp, norm(want) * (1 + m[4]) + m[3])
        assert torch.allclose(got_part, want, atol=ROUNDING * 100)


def test_shared_weights_are_dit_on_the_concatenation():
    tied, shared = joint(), moved(SharedBlock(DIM, HEADS))
    tied.context.load_state_dict(shared.block.state_dict())
    tied.image.load_state_dict(shared.block.state_dict())
    words, x, c = numbers(1, 2, 3, DIM), numbers(2, 2, 5, DIM), numbers(3, 2, DIM)
    a, b = tied(words, x, c), shared(words, x, c)
    plain = BLOCKS["adaLN-Zero"](DIM, HEADS).double().eval()
    plain.load_state_dict(shared.block.state_dict())
    h, _ = plain(torch.cat([words, x], 1), c[:, None])
    for got in (a, b):
        assert torch.allclose(torch.cat(got, 1), h, atol=ROUNDING * 100)


def test_the_last_caption_stream_only_lends_keys_and_values():
    block, c = joint(last=True), numbers(3, 1, DIM)
    words, x = numbers(1, 1, 3, DIM), numbers(2, 1, 5, DIM)
    after, y = block(words, x, c)
    assert torch.equal(after, words)
    assert float((block(words + numbers(4, 1, 3, DIM), x, c)[1] - y).detach().abs().max()) > 1e-3
    assert block.context.modulation[1].out_features == 2 * DIM
    assert joint().context.modulation[1].out_features == 6 * DIM


@pytest.mark.parametrize("separate", [True, False])
def test_captions_are_sets_of_words_and_act_on_the_image(separate):
    """Only image tokens have places: the order of words is nothing (in SD3 the text encoders know it)."""
    net = moved(MMDiT(side=8, patch=4, dim=DIM, depth=2, words=6, separate=separate))
    x, t = numbers(1, 1, 1, 8, 8), torch.tensor([0.3], dtype=torch.float64)
    base = net(x, t, torch.tensor([[1, 2, 3]]))
    assert torch.allclose(net(x, t, torch.tensor([[3, 1, 2]])), base, atol=1e-11)
    assert float((net(x, t, torch.tensor([[1, 2, 4]])) - base).detach().abs().max()) > 1e-3


def block_parameters(kind: str, d: int) -> int:
    """12 d^2 + 13 d of a transformer block whose norms have weights, and what each conditioning changes."""
    plain = 4 * (d * d) + 4 * d + 8 * d * d + 5 * d  # attention, MLP
    return {
        "in-context": plain + 4 * d,  # two norms
        "cross-attention": plain + 6 * d + 4 * d * d + 4 * d,  # three norms, the second attention
        "adaLN": plain + 4 * d * d + 4 * d,
        "adaLN-Zero": plain + 6 * d * d + 6 * d,
    }[kind]


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("kind", BLOCKS)
def test_parameters_in_closed_form(kind):
    d, depth, outputs, classes = 32, 3, 16, 10
    head = outputs * (d + 1) + (2 * d if kind in ("in-context", "cross-attention") else 2 * d * (d + 1))
    ends = (16 + 1) * d + (256 + 1) * d + (d + 1) * d + (classes + 1) * d
    assert count(DiT(dim=d, depth=depth, conditioning=kind)) == depth * block_parameters(kind, d) + ends + head


def test_parameters_of_mmdit_in_closed_form():
    d, depth, words = 32, 3, 14
    ends = (16 + 1) * d + (256 + 1) * d + (d + 1) * d + (words + 1) * d + 16 * (d + 1) + 2 * d * (d + 1)
    one = block_parameters("adaLN-Zero", d)
    lent = 3 * d * (d + 1) + 2 * d * (d + 1)  # the last caption stream: queries, keys, values, scale and shift
    assert count(MMDiT(dim=d, depth=depth, words=words, separate=False)) == depth * one + ends
    assert count(MMDiT(dim=d, depth=depth, words=words)) == (2 * depth - 1) * one + lent + ends


def multiplications(kind: str, n: int, d: int) -> int:
    """Of one block for n image tokens and two condition tokens."""

    def attention(m: int) -> int:
        return 4 * m * d * d + 2 * m * m * d

    if kind == "in-context":
        return attention(n + 2) + 8 * (n + 2) * d * d
    extra = {
        "cross-attention": 2 * n * d * d + 2 * 2 * d * d + 2 * n * 2 * d,  # q and out; k, v; the products
        "adaLN": 4 * d * d,
        "adaLN-Zero": 6 * d * d,
    }[kind]
    return attention(n) + 8 * n * d * d + extra


@pytest.mark.parametrize("kind", BLOCKS)
def test_flops_in_closed_form(kind):
    """Two for each multiplication of a matrix product; norms, softmax and the like are not counted by torch."""
    n, d, depth = 64, 32, 3
    head = n * d * 16 + (0 if kind in ("in-context", "cross-attention") else 2 * d * d)
    ends = n * 16 * d + 256 * d + d * d
    assert flops(DiT(dim=d, depth=depth, conditioning=kind)) == 2 * (depth * multiplications(kind, n, d) + ends + head)


def test_flops_of_mmdit_in_closed_form():
    n, d, depth, words = 64, 32, 3, 3
    ends = n * 16 * d + 256 * d + d * d + n * d * 16 + 2 * d * d
    block = multiplications("adaLN-Zero", n + words, d)
    unused = words * d * d + 8 * words * d * d + 4 * d * d  # the last caption: output projection, MLP, 4 of 6 vectors
    assert flops(MMDiT(dim=d, depth=depth, separate=False)) == 2 * (depth * block + ends)
    twice = depth * (block + 6 * d * d) - unused
    assert flops(MMDiT(dim=d, depth=depth)) == 2 * (twice + ends)


def test_the_protocol_has_all_four():
    assert set(BLOCKS) == {"in-context", "cross-attention", "adaLN", "adaLN-Zero"}
    assert (BLOCKS["in-context"], BLOCKS["cross-attention"]) == (InContext, CrossAttended)

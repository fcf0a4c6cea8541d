"""Going on from a map, and what FCFD makes of it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kdbench.errors import BadInput
from kdbench.methods import METHODS, BatchInfo, as_loss
from kdbench.methods.halves import bridge
from kdbench.methods.logits import soft_kl
from kdbench.methods.maps import stages
from kdbench.models import build
from kdbench.teacher import asked, outputs, taps_of
from kdbench.teacher.outputs import resumed

IMAGE = torch.zeros(1, 3, 32, 32)


@pytest.mark.parametrize("name", ["test_resnet", "cifar_resnet20", "cifar_vgg8", "mobilenetv3_small_050"])
def test_from_its_own_map_a_network_says_what_it_said(name: str) -> None:
    network = build(name, classes=10, channels=3, input_size=32, seed=1)
    rest, x = resumed(network, IMAGE), torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network.eval()
    whole = outputs(asked(network, {"maps"})(x))
    for stage in sorted(whole.maps)[:-1]:
        found = rest(stage, whole.maps[stage])
        assert torch.allclose(found.logits, whole.logits, atol=1e-5)
        assert set(found.maps) == {k for k in whole.maps if k > stage}
        assert all(torch.allclose(found.maps[k], whole.maps[k], atol=1e-5) for k in found.maps)
    network.train()
    first = next(one for one in network.modules() if isinstance(one, torch.nn.BatchNorm2d))
    rest = resumed(network, IMAGE) if first.eval() else rest
    assert network.training and not first.training, "a frozen module stays in eval mode"
    first.train()
    before = [buffer.clone() for buffer in network.buffers()]
    given = torch.randn_like(whole.maps[2]).requires_grad_()
    rest(2, given).logits.sum().backward()
    assert given.grad is not None and given.grad.abs().sum() > 0
    assert all(map(torch.equal, before, network.buffers())), "running statistics are of whole passes alone"
    assert any(p.grad is not None for p in network.parameters())


def test_fcfd_by_hand() -> None:
    networks = [build("cifar_resnet20", classes=10, channels=3, input_size=32, seed=k).eval() for k in (1, 2)]
    taps = [taps_of(asked(one, {"maps"}), one, IMAGE) for one in networks]
    spec = METHODS.get("fcfd")
    code = spec.build(spec.defaults, *taps).eval()  # type: ignore[union-attr]
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    said, taught = (outputs(asked(one, {"maps"})(x)) for one in networks)
    y, batch = torch.tensor([0, 1, 2, 3]), BatchInfo(epoch=1, epochs=24)
    torch.manual_seed(5)
    found = as_loss(code(said, taught, y, batch))
    places = stages(said, taught)
    assert [one for one, _ in places] == [2, 3, 4]
    bridged = [getattr(code, f"to{k}")(said.maps[one]) for k, (one, _) in enumerate(places)]
    mean = lambda m: m.relu().mean((2, 3))  # noqa: E731

    def gap(k: int, shown: torch.Tensor) -> torch.Tensor:
        wanted = taught.maps[places[k][1]]
        return F.mse_loss(shown, wanted) + (F.mse_loss(mean(shown), mean(wanted)) if k == 2 else 0)

    squares, mixed = sum(gap(k, one) for k, one in enumerate(bridged)), torch.zeros(())
    torch.manual_seed(5)
    for number in torch.randperm(4)[:2].tolist():
        k, from_teacher = divmod(number, 2)
        if from_teacher:
            path = resumed(networks[0], IMAGE)(places[k][0], getattr(code, f"from{k}")(taught.maps[places[k][1]]))
        else:
            path = resumed(networks[1], IMAGE)(places[k][1], bridged[k])
            squares = squares + sum(gap(later, path.maps[places[later][1]]) for later in range(k + 1, 3))
        mixed = mixed + soft_kl(path.logits, taught.logits, 4.0)
    assert float(found.parts["maps"].detach()) == pytest.approx(float(squares) / 2, rel=1e-5), "at half of the warm-up"
    assert float(found.parts["mixed"].detach()) == pytest.approx(float(mixed), rel=1e-5)
    expected = F.cross_entropy(said.logits, y) + soft_kl(said.logits, taught.logits, 4.0) + mixed + 5 * squares / 2
    assert float(found.total.detach()) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("side", "other"), [(8, 8), (8, 4), (4, 8)])
def test_a_bridge_makes_the_other_map(side: int, other: int) -> None:
    assert bridge((3, side, side), (5, other, other))(torch.zeros(2, 3, side, side)).shape == (2, 5, other, other)


def test_what_cannot_be_joined_is_refused() -> None:
    with pytest.raises(BadInput, match="not 8 and 2 pixels"):
        bridge((3, 8, 8), (5, 2, 2))
    network = build("test_resnet", classes=10, channels=3, input_size=32, seed=1)
    with pytest.raises(BadInput, match="cannot go on from its stage 9"):
        resumed(network, IMAGE)(9, torch.zeros(1))

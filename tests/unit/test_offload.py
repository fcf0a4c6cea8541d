"""A teacher whose blocks visit the device in turn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kdbench.models import build
from kdbench.teacher.offload import bytes_of, place, visiting


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "cifar_resnet20", "mobilenetv3_small_050"])
def test_it_says_the_same_and_is_never_away_as_a_whole(name: str) -> None:
    network = build(name, classes=10, channels=3, input_size=32, seed=1).eval()
    x, away, most = torch.randn(2, 3, 32, 32), [], [0]

    def there(home: Tensor) -> Tensor:
        away.append(home.clone())
        held = {one.data_ptr() for one in network.state_dict().values()}
        most[0] = max(most[0], sum(one.nbytes for one in away if one.data_ptr() in held) + home.nbytes)
        return away[-1]

    def places() -> set[int]:
        return {one.data_ptr() for one in network.state_dict().values()}

    with torch.no_grad():
        expected = network(x)
        visiting(network, there)
        homes = places()
        assert torch.equal(network(x), expected)
        assert 0 < most[0] < 0.8 * bytes_of(network)
        assert places() == homes, "all are at home again"
        if name != "test_vit":
            assert torch.equal(network.forward_head(network.forward_intermediates(x, norm=False)[0]), expected)
        with pytest.raises(RuntimeError):
            network(x[:, :1])
        assert places() == homes, "after a fault too"


def test_without_a_gpu_it_is_where_it_is() -> None:
    network = nn.Conv2d(3, 4, 3)
    assert place(network, torch.device("cpu")) is network and not network._forward_pre_hooks

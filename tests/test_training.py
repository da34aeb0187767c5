"""What comes between a sweep and a step: grads from programs, clipping, learning rate schedules; PyTorch's numbers.

Numbers of PyTorch are those of torch 2.13.0 with `torch.set_default_dtype(torch.float64)`, as the lines at them print.
"""

from __future__ import annotations

import copy
import json
import math
import pickle

import pytest

import tapegrad
from tapegrad import Value, grads, leaves, nn, optim, record, set_grads, zero_grad
from tapegrad.optim import SGD, Adam, RMSprop, clip_grad_norm_, clip_grad_value_
from tapegrad.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, StepLR

# set_grads


def test_grads_are_written():
    values, other = leaves([1.0, 2.0, 3.0]), Value(4.0)
    other.grad = 5.0
    set_grads(values, [0.5, 1, True])
    assert grads([*values, other]) == [0.5, 1.0, 1.0, 5.0]


def test_grads_may_come_from_an_iterator_and_an_array(np):
    values = leaves([1.0, 2.0])
    set_grads(iter(values), (x for x in (3.0, 4.0)))
    assert grads(values) == [3.0, 4.0]
    table = np.array(leaves([1.0] * 4), dtype=object).reshape(2, 2)
    set_grads(table, np.arange(4.0).reshape(2, 2))
    assert grads(table).tolist() == [[0.0, 1.0], [2.0, 3.0]]
    with pytest.raises(ValueError, match=r"shape \(2, 2\) but numbers of shape \(4,\)"):
        set_grads(table, np.arange(4.0))


def test_a_module_stands_for_its_parameters():
    model = nn.MLP(2, [2, 1])
    numbers = [float(k) for k in range(9)]
    set_grads(model, numbers)
    assert grads(model) == numbers
    tapegrad.set_data(model, numbers)
    assert tapegrad.data(model) == numbers
    zero_grad(model)
    assert grads(model) == [0.0] * 9


@pytest.mark.parametrize(
    ("values", "numbers", "error", "message"),
    [
        (2, [1.0], ValueError, "2 Values but 1 numbers"),
        (1, [1.0, 2.0], ValueError, "1 Values but 2 numbers"),
        (1, ["x"], TypeError, "str"),
        (1, [Value(1.0)], TypeError, "grads are numbers, not 'Value'"),
        (1, 3.0, TypeError, "iterable"),
    ],
)
def test_refused_grads_write_nothing(values, numbers, error, message):
    values = leaves([1.0] * values)
    for v in values:
        v.grad = 7.0
    with pytest.raises(error, match=message):
        set_grads(values, numbers)
    assert grads(values) == [7.0] * len(values)
    with pytest.raises(TypeError, match="float"):
        set_grads([*values, 1.0], [1.0] * (len(values) + 1))
    assert grads(values) == [7.0] * len(values)


def test_in_a_rule_grads_are_the_adjoints_of_the_sweep():
    """As with `.grad`: what a rule writes there is passed on."""
    x = Value(2.0)
    y = x * 3
    z = y * 1
    z._backward = lambda: set_grads([y], [z.grad * 10])
    z.backward()
    assert x.grad == 30.0


def test_a_program_trains_a_model_through_an_optimizer():
    """The steps are those of the plain loop."""
    xs, ys = [[2.0, 3.0], [3.0, -1.0], [0.5, 1.0]], [1.0, -1.0, 0.5]
    model = nn.MLP(2, [4, 1], activation="tanh")
    twin = copy.deepcopy(model)

    def loss(x, y):
        return (model(x) - y) ** 2

    parameters = model.parameters()
    batch = record(loss, xs[0], ys[0], params=parameters).map(in_axes=(0, 0), reduce="mean")
    optimizer, other = Adam(model, lr=0.05), Adam(twin, lr=0.05)
    first = None
    for _ in range(100):
        value, slopes = batch.value_and_grad(xs, ys, argnums="params")
        first = first or value
        set_grads(parameters, slopes)
        optimizer.step()
        other.zero_grad()
        total = sum((twin(x) - y) ** 2 for x, y in zip(xs, ys)) / 3
        total.backward()
        other.step()
        assert value == pytest.approx(total.data, rel=1e-9, abs=1e-12)
    assert value < 0.05 * first


# RMSprop


def test_the_numbers_of_rmsprop_are_pytorchs():
    """
    p = torch.tensor([0.7, -1.3, 2.0], requires_grad=True)
    opt = RMSprop([p], lr=0.1, alpha=0.9, momentum=0.5, centered=True, weight_decay=0.01)
    for k in range(5): p.grad = torch.tensor([0.5 - k, 0.25 * k, -1.0]); opt.step()
    p.tolist()
    """
    p = leaves([0.7, -1.3, 2.0])
    optimizer = RMSprop(p, lr=0.1, alpha=0.9, momentum=0.5, centered=True, weight_decay=0.01)
    for k in range(5):
        set_grads(p, [0.5 - k, 0.25 * k, -1.0])
        optimizer.step()
    assert tapegrad.data(p) == pytest.approx([1.73825661432618, -2.5510268567238388, 4.030973802302411], rel=1e-12)


# clipping

# q = [torch.zeros((), requires_grad=True) for _ in range(4)], with grads 3, -4, 12, 0
# torch.nn.utils.clip_grad_norm_(q, max_norm, norm_type).item(), [x.grad.item() for x in q]
CLIPPED = [
    (1.0, 2.0, 13.0, [0.23076921301775288, -0.3076922840236705, 0.9230768520710115, 0.0]),
    (20.0, 2.0, 13.0, [3.0, -4.0, 12.0, 0.0]),
    (2.0, 1.0, 19.0, [0.31578945706371275, -0.4210526094182837, 1.263157828254851, 0.0]),
    (3.0, math.inf, 12.0, [0.7499999375000053, -0.9999999166666738, 2.999999750000021, 0.0]),
    (1.0, 3.0, 12.207054953820636, [0.2457595026474047, -0.32767933686320627, 0.9830380105896188, 0.0]),
    (0.0, 2.0, 13.0, [0.0, 0.0, 0.0, 0.0]),
]


def with_grads(*numbers):
    values = leaves([1.0] * len(numbers))
    set_grads(values, numbers)
    return values


@pytest.mark.parametrize(("max_norm", "norm_type", "total", "expected"), CLIPPED)
def test_norms_are_clipped_as_by_pytorch(max_norm, norm_type, total, expected):
    values = with_grads(3.0, -4.0, 12.0, 0.0)
    assert clip_grad_norm_(values, max_norm, norm_type) == pytest.approx(total, rel=1e-15)
    assert grads(values) == pytest.approx(expected, rel=1e-14)
    assert tapegrad.data(values) == [1.0] * 4


def test_a_norm_that_is_small_enough_is_left_to_the_bit():
    values = with_grads(0.1, 0.2)
    assert clip_grad_norm_(iter(values), 1.0) == math.hypot(0.1, 0.2)
    assert grads(values) == [0.1, 0.2]


def test_a_norm_that_is_not_finite_is_pytorchs_or_an_error():
    values = with_grads(math.inf, 1.0)
    with pytest.raises(RuntimeError, match="inf"):
        clip_grad_norm_(values, 1.0, error_if_nonfinite=True)
    assert grads(values) == [math.inf, 1.0]
    assert clip_grad_norm_(values, 1.0) == math.inf
    assert math.isnan(values[0].grad) and values[1].grad == 0.0
    values = with_grads(math.nan, 1.0)
    assert math.isnan(clip_grad_norm_(values, 1.0))
    assert all(map(math.isnan, grads(values)))


def test_values_are_clipped_as_by_pytorch():
    """torch.nn.utils.clip_grad_value_(q, 3.5)"""
    values = with_grads(3.0, -4.0, 12.0, 0.0, math.nan)
    clip_grad_value_(values, 3.5)
    assert grads(values) == pytest.approx([3.0, -3.5, 3.5, 0.0, math.nan], nan_ok=True)


def test_clipping_takes_modules_and_single_values():
    model, v = nn.MLP(2, [1]), Value(1.0)
    set_grads(model, [3.0, 4.0, 0.0])
    assert clip_grad_norm_(model, 1.0) == 5.0
    assert grads(model) == pytest.approx([0.6, 0.8, 0.0], rel=1e-6)
    v.grad = -8.0
    clip_grad_value_(v, 2)
    assert v.grad == -2.0
    assert clip_grad_norm_([], 1.0) == 0.0


# schedules

# opt = SGD([p], lr=0.5); s = make(opt)
# for _ in range(13): out.append(opt.param_groups[0]["lr"]); opt.step(); s.step()
RATES = [
    (
        lambda o: [StepLR(o, 3)],
        [0.5, 0.5, 0.5, 0.05, 0.05, 0.05, 0.005000000000000001, 0.005000000000000001, 0.005000000000000001,
         0.0005000000000000001, 0.0005000000000000001, 0.0005000000000000001, 5.0000000000000016e-05],
    ),
    (
        lambda o: [CosineAnnealingLR(o, 5, eta_min=0.1)],
        [0.5, 0.46180339887498956, 0.3618033988749896, 0.2381966011250106, 0.13819660112501056, 0.1,
         0.13819660112501053, 0.23819660112501062, 0.3618033988749897, 0.4618033988749899, 0.5000000000000004,
         0.46180339887499, 0.3618033988749898],
    ),
    (
        lambda o: [LambdaLR(o, lambda k: 0.95**k)],
        [0.5, 0.475, 0.45125, 0.42868749999999994, 0.40725312499999994, 0.3868904687499999, 0.3675459453124999,
         0.34916864804687486, 0.3317102156445311, 0.31512470486230454, 0.29936846961918934, 0.28440004613822983,
         0.27018004383131833],
    ),
    (
        lambda o: [StepLR(o, 4, gamma=0.5), CosineAnnealingLR(o, 6)],
        [0.5, 0.4665063509461097, 0.375, 0.25, 0.06250000000000003, 0.01674682452694516, 0.0, 0.03349364905389032,
         0.0625, 0.12500000000000008, 0.1875000000000002, 0.23325317547305505, 0.12500000000000014],
    ),
]  # fmt: skip
SCHEDULES = pytest.mark.parametrize(("make", "expected"), RATES, ids=["step", "cosine", "lambda", "step and cosine"])


def scheduled(lr=0.5):
    return SGD([Value(1.0)], lr=lr, momentum=0.9)


@SCHEDULES
def test_the_rates_are_pytorchs_to_the_bit(make, expected):
    optimizer = scheduled()
    schedules, rates = make(optimizer), []
    for _ in expected:
        rates.append(optimizer.lr)
        optimizer.step()
        for schedule in schedules:
            schedule.step()
            assert schedule.get_last_lr() == [optimizer.lr] or len(schedules) > 1
    assert rates == expected


@SCHEDULES
@pytest.mark.parametrize("through", [lambda x: json.loads(json.dumps(x)), lambda x: pickle.loads(pickle.dumps(x))])
def test_a_saved_schedule_goes_on(make, expected, through):
    optimizer = scheduled()
    schedules = make(optimizer)
    for _ in range(5):
        optimizer.step()
        for schedule in schedules:
            schedule.step()
    saved = through([optimizer.state_dict(), *(schedule.state_dict() for schedule in schedules)])
    twin = scheduled(lr=9.0)
    others = make(twin)
    for thing, state in zip([twin, *others], saved):
        thing.load_state_dict(state)
    rates = []
    for _ in range(5, 13):
        rates.append(twin.lr)
        for schedule in others:
            schedule.step()
    assert rates == expected[5:]


def test_a_saved_state_does_not_change_any_more():
    schedule = StepLR(scheduled(), 1)
    state = schedule.state_dict()
    kept = copy.deepcopy(state)
    schedule.step()
    assert state == kept != schedule.state_dict()
    assert "optimizer" not in state


def test_a_schedule_goes_on_from_the_last_epoch():
    optimizer = scheduled()
    LambdaLR(optimizer, lambda k: 1.0)
    schedule = LambdaLR(optimizer, lambda k: 0.95**k, last_epoch=4)
    assert (schedule.last_epoch, optimizer.lr) == (5, 0.3868904687499999)


def test_to_go_on_the_optimizer_must_have_been_scheduled():
    with pytest.raises(KeyError, match="initial_lr"):
        StepLR(scheduled(), 3, last_epoch=4)


def test_a_schedule_of_ones_own_defines_get_lr():
    class Halves(LRScheduler):
        def get_lr(self):
            return [base * 0.5**self.last_epoch for base in self.base_lrs]

    optimizer = scheduled(lr=1.0)
    schedule = Halves(optimizer)
    schedule.step()
    schedule.step()
    assert optimizer.lr == 0.25
    with pytest.raises(NotImplementedError):
        LRScheduler(optimizer)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda o: StepLR([o], 3), TypeError, "'list'"),
        (lambda o: StepLR(o, 0), ValueError, "step_size must be 1 or more, not 0"),
        (lambda o: CosineAnnealingLR(o, -1), ValueError, "T_max"),
        (lambda o: LambdaLR(o, []), ValueError, "not 0"),
        (lambda o: LambdaLR(o, [abs, abs]), ValueError, "not 2"),
    ],
)
def test_a_refused_schedule_says_why(make, error, message):
    with pytest.raises(error, match=message):
        make(scheduled())


def test_the_names_are_offered():
    assert optim.lr_scheduler.StepLR is StepLR
    assert all(getattr(optim, name).__doc__ for name in optim.__all__)
    assert all(getattr(optim.lr_scheduler, name).__doc__ for name in optim.lr_scheduler.__all__)
    assert {"set_grads", "zero_grad", "optim"} <= set(tapegrad.__all__)
